{{- /* What the admission policies share. Expressions are CEL; the bounds in them are those of the webhook, which marks a pod by the same rules.

       Every list and map that a pod's author sizes is counted before it is gone through: CEL's own cost limit stops none of that. */ -}}

{{- /* Namespaces of the webhook or of the guard, as matchExpressions. Call with a dict: exclude (names). */ -}}
{{- define "tokenscope.namespaceExpressions" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values:
    {{- .exclude | toYaml | nindent 4 }}
- key: tokenscope.io/inject
  operator: NotIn
  values: ["false"]
{{- end -}}

{{- /* Names of the namespaces that the guard leaves alone, as a JSON list: our own, so that we can start, and those that values name. */ -}}
{{- define "tokenscope.unguardedNamespaces" -}}
{{- append (.Values.guard.excludeNamespaces | default list) .Release.Namespace | uniq | toJson -}}
{{- end -}}

{{- /* The locked audiences, as a JSON list, which is a CEL list too. A token for the agent of EKS Pod Identity is worth a role where ServiceAccounts are listed for it. */ -}}
{{- define "tokenscope.lockedAudiences" -}}
{{- $audiences := .Values.lock.audiences | default (list .Values.defaults.audience) -}}
{{- if include "tokenscope.hasPodIdentity" . -}}
{{- $audiences = append $audiences .Values.eksPodIdentity.audience -}}
{{- end -}}
{{- $audiences | uniq | toJson -}}
{{- end -}}

{{- /* What a binding does where the policy doesn't hold, by lock.mode; empty with off. */ -}}
{{- define "tokenscope.lockAction" -}}
{{- get (dict "audit" "Audit" "warn" "Warn" "deny" "Deny") .Values.lock.mode -}}
{{- end -}}

{{- /* A rule for one operation on resources of the core group. Call with a dict: operation, resources. */ -}}
{{- define "tokenscope.coreRules" -}}
resourceRules:
- apiGroups: [""]
  apiVersions: [v1]
  operations: [{{ .operation }}]
  resources: {{ toJson .resources }}
  scope: Namespaced
{{- end -}}

{{- /* A binding. Call with a dict: root, name, action, and optionally policy (else its name), namespaces (matchExpressions). */ -}}
{{- define "tokenscope.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  {{- include "tokenscope.metadata" (dict "root" .root "name" .name "component" "guard") | nindent 2 }}
spec:
  policyName: {{ .policy | default .name }}
  validationActions: [{{ .action }}]
  {{- with .namespaces }}
  matchResources:
    matchPolicy: Equivalent
    objectSelector: {}
    namespaceSelector:
      matchExpressions:
      {{- toYaml . | nindent 6 }}
  {{- end }}
{{- end -}}

{{- /* CEL: the pod itself asks for a role, or has more annotations than are looked at, and has not opted out. A mirror pod only shows what a kubelet
       already runs: refusing it stops nothing and hides it. */ -}}
{{- define "tokenscope.asks" -}}
has(object.metadata.annotations)
&& (object.metadata.annotations.size() > 256 || object.metadata.annotations.exists(k,
  k.startsWith('tokenscope.io/role-arn') && (k == 'tokenscope.io/role-arn' || k.startsWith('tokenscope.io/role-arn.'))))
&& object.metadata.annotations[?'tokenscope.io/inject'].orValue('') != 'false'
&& !('kubernetes.io/config.mirror' in object.metadata.annotations)
{{- end -}}

{{- /* CEL: the volume v has a projected token of one of these audiences, or more sources than are looked at. A token without an audience is the API
       server's own, which can't be locked. Call with a JSON list. */ -}}
{{- define "tokenscope.volumeOfAudience" -}}
has(v.projected) && has(v.projected.sources) && (v.projected.sources.size() > 32 || v.projected.sources.exists(s,
  has(s.serviceAccountToken) && has(s.serviceAccountToken.audience) && s.serviceAccountToken.audience in {{ . }}))
{{- end -}}

{{- /* CEL: the pod has a volume with a token of the exchange audience, or more volumes or sources than are looked at. */ -}}
{{- define "tokenscope.holdsExchangeToken" -}}
has(object.spec.volumes)
&& (object.spec.volumes.size() > 256 || object.spec.volumes.exists(v, {{ include "tokenscope.volumeOfAudience" (include "tokenscope.exchangeAudiences" .) }}))
{{- end -}}

{{- /* The audience of the tokens that tokenscope's own issuer takes, as a JSON list; without an issuer it is empty. */ -}}
{{- define "tokenscope.exchangeAudiences" -}}
{{- with include "tokenscope.issuerUrl" . }}{{ list . | toJson }}{{ else }}[]{{ end -}}
{{- end -}}

{{- /* CEL: the volume v has a projected token of a locked audience, the exchange audience among them, or is one of a listed CSI driver. */ -}}
{{- define "tokenscope.lockedVolume" -}}
{{- $audiences := concat (include "tokenscope.lockedAudiences" . | fromJsonArray) (include "tokenscope.exchangeAudiences" . | fromJsonArray) | uniq }}
{{- include "tokenscope.volumeOfAudience" ($audiences | toJson) }}
{{- with .Values.lock.csiDrivers }}
|| has(v.csi) && v.csi.driver in {{ uniq . | toJson }}
{{- end }}
{{- end -}}

{{- /* CEL: a TokenRequest of one of these audiences, or of more than are looked at, that is not a kubelet's for a pod. A kubelet asks for what a pod's
       volumes say, which was judged when the pod was created. Call with a JSON list. */ -}}
{{- define "tokenscope.requestsToken" -}}
(object.spec.audiences.size() > 32 || object.spec.audiences.exists(a, a in {{ . }}))
&& !(request.userInfo.username.startsWith('system:node:') && request.userInfo.groups.size() <= 256 && 'system:nodes' in request.userInfo.groups
  && object.spec.?boundObjectRef.?kind.orValue('') == 'Pod')
{{- end -}}

{{- /* What a refusal calls a volume with a token of the exchange audience. */ -}}
{{- define "tokenscope.exchangeText" -}}
a projected token of the audience of tokenscope's own issuer ({{ include "tokenscope.issuerUrl" . }})
{{- end -}}

{{- /* What a refusal calls such volumes. */ -}}
{{- define "tokenscope.lockedText" -}}
a projected token of a locked audience ({{ include "tokenscope.lockedAudiences" . | fromJsonArray | join ", " }})
{{- with .Values.lock.csiDrivers }}, an inline volume of a CSI driver that lock.csiDrivers names ({{ uniq . | join ", " }}){{ end -}}
{{- end -}}

{{- /* CEL: the pod has a volume with a token of a locked audience or of a listed CSI driver, or more volumes than are looked at. */ -}}
{{- define "tokenscope.holdsLockedToken" -}}
has(object.spec.volumes)
&& (object.spec.volumes.size() > 256 || object.spec.volumes.exists(v, {{ include "tokenscope.lockedVolume" . }}))
{{- end -}}

{{- /* CEL: who asks is one of a list of users and groups. Call with a dict: users, groups. */ -}}
{{- define "tokenscope.requestedBy" -}}
{{- $groups := "request.userInfo.groups" -}}
(request.userInfo.username in {{ toJson .users }}
  || (has({{ $groups }}) && {{ $groups }}.size() <= 256 && {{ $groups }}.exists(g, g in {{ toJson .groups }})))
{{- end -}}

{{- /* Whether pods pass that bear the annotation of the previous release's webhook in place of the label: "true" or "". */ -}}
{{- define "tokenscope.acceptsAnnotationMark" -}}
{{- $value := .Values.guard.acceptAnnotationMark -}}
{{- if eq (toString $value) "auto" -}}
{{- range (lookup "admissionregistration.k8s.io/v1" "MutatingWebhookConfiguration" "" "tokenscope").webhooks -}}
{{- if eq .name "pods-that-ask.tokenscope.io" -}}true{{- end -}}
{{- end -}}
{{- else if $value -}}true{{- end -}}
{{- end -}}

{{- /* CEL: the webhook of the previous release has seen the pod. An annotation that the pod brought itself is gone by now: see the webhook configuration. */ -}}
{{- define "tokenscope.hasAnnotationMark" -}}
object.metadata.?annotations[?'tokenscope.io/reviewed'].hasValue()
{{- end -}}

{{- /*
The caBundle that an entry of the webhook configuration must bring, or "" where it should be left alone.

An entry that an upgrade adds would have none until the operator has written it, and the API server could not call it for that moment. So it gets that of the
entries that are there. From then on helm's server-side apply owns it, and would remove it if a later upgrade left it out: it is repeated as it is.
Call with a dict: name, configuration (what is in the cluster).
*/ -}}
{{- define "tokenscope.caBundle" -}}
{{- $own := "" -}}
{{- $any := "" -}}
{{- $is_there := false -}}
{{- range .configuration.webhooks -}}
{{- $bundle := dig "clientConfig" "caBundle" "" . -}}
{{- if eq .name $.name -}}{{- $is_there = true -}}{{- $own = $bundle -}}{{- end -}}
{{- $any = $any | default $bundle -}}
{{- end -}}
{{- $is_helms := false -}}
{{- range dig "metadata" "managedFields" list .configuration -}}
{{- $field := dig "fieldsV1" "f:webhooks" (printf "k:{\"name\":%q}" $.name) "f:clientConfig" "f:caBundle" "none" . -}}
{{- if and (eq .operation "Apply") (ne (toString $field) "none") -}}{{- $is_helms = true -}}{{- end -}}
{{- end -}}
{{- if not $is_there -}}{{- $any -}}{{- else if $is_helms -}}{{- $own -}}{{- end -}}
{{- end -}}

{{- /* Whether the API server itself takes a mark away that a pod brings: "true" or "". Kubernetes has MutatingAdmissionPolicy, v1, since 1.36. */ -}}
{{- define "tokenscope.removesMarks" -}}
{{- if semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version -}}true{{- end -}}
{{- end -}}
