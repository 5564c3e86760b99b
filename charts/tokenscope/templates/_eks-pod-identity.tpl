{{- /* "true" where ServiceAccounts of EKS Pod Identity are listed, else empty. */ -}}
{{- define "tokenscope.hasPodIdentity" -}}
{{- if .Values.eksPodIdentity.config.identities -}}
{{- if not .Values.eksCompatible -}}
{{- fail "eksPodIdentity.config.identities needs eksCompatible: true, since nothing is done for EKS Pod Identity without it" -}}
{{- end -}}
true
{{- end -}}
{{- end -}}

{{- /* What webhook and operator need for it, as a JSON object: arguments, mounts, volumes and annotations; nothing where nobody is listed. The processes read
       the file at start, so the annotation makes new pods of another list. */ -}}
{{- define "tokenscope.podIdentity" -}}
{{- $arguments := list }}
{{- $mounts := list }}
{{- $volumes := list }}
{{- $annotations := dict }}
{{- if include "tokenscope.hasPodIdentity" . }}
{{- $values := .Values.eksPodIdentity }}
{{- $arguments = list
  "--eks-pod-identity-config=/etc/tokenscope/eks-pod-identity/config.json"
  (printf "--eks-pod-identity-audience=%s" $values.audience | quote)
  (printf "--eks-pod-identity-full-uri=%s" $values.fullUri | quote)
  (printf "--eks-pod-identity-mount-path=%s" $values.mountPath | quote)
  (printf "--eks-pod-identity-volume=%s" $values.volumeName | quote)
  (printf "--eks-pod-identity-token-path=%s" $values.tokenPath | quote) }}
{{- $mounts = list (dict "name" "eks-pod-identity" "mountPath" "/etc/tokenscope/eks-pod-identity" "readOnly" true) }}
{{- $volumes = list (dict "name" "eks-pod-identity" "configMap" (dict "name" "tokenscope-eks-pod-identity")) }}
{{- $annotations = dict "checksum/eks-pod-identity" (toJson $values.config | sha256sum) }}
{{- end }}
{{- dict "arguments" $arguments "mounts" $mounts "volumes" $volumes "annotations" $annotations | toJson -}}
{{- end -}}
