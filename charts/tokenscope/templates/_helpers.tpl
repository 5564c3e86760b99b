{{- /* The chart's own labels of every object. Call with (list $ "webhook"); the component may be "". */ -}}
{{- define "tokenscope.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: tokenscope
{{ include "tokenscope.selectorLabels" . }}
{{- end -}}

{{- /* The labels that never change, for selectors. Call as tokenscope.labels. */ -}}
{{- define "tokenscope.selectorLabels" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
app.kubernetes.io/name: tokenscope
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with $component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- /* name, labels and annotations of an object. Call with a dict: root, name, component, and optionally namespaced, labels, annotations. */ -}}
{{- define "tokenscope.metadata" -}}
name: {{ .name }}
{{- if .namespaced }}
namespace: {{ .root.Release.Namespace }}
{{- end }}
labels:
  {{- mergeOverwrite (dict) .root.Values.commonLabels (.labels | default dict) (include "tokenscope.labels" (list .root .component) | fromYaml) | toYaml | nindent 2 }}
{{- with mergeOverwrite (dict) .root.Values.commonAnnotations (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The URL of tokenscope's own issuer where the installation runs one, else empty. In earlier versions the value issuer was a text: that of the cluster. */ -}}
{{- define "tokenscope.issuerUrl" -}}
{{- if not (kindIs "map" .Values.issuer) -}}
{{- fail "the value issuer is no text any more: the issuer URL of the cluster is the value clusterIssuer now, and issuer.enabled and issuer.url are about tokenscope's own issuer" -}}
{{- end -}}
{{- if .Values.issuer.enabled -}}
{{- required "issuer.enabled needs issuer.url: the URL of tokenscope's own issuer" .Values.issuer.url -}}
{{- end -}}
{{- end -}}

{{- /* "true" where the pods have one of Kubernetes' critical classes and are not in kube-system, else empty. */ -}}
{{- define "tokenscope.isCriticalElsewhere" -}}
{{- if and (has .Values.priorityClassName (list "system-cluster-critical" "system-node-critical")) (ne .Release.Namespace "kube-system") -}}
true
{{- end -}}
{{- end -}}

{{- /* Arguments that both processes take. Numbers go through int64: Helm holds them as floats, which print as 3.1536e+07. */ -}}
{{- define "tokenscope.commonArguments" -}}
- {{ printf "--log-level=%s" .Values.logging.level | quote }}
- --log-format={{ .Values.logging.format }}
{{- /* Kept values of an older release have none: the processes have the same default. */}}
{{- if not (kindIs "invalid" .Values.watchAgeLimitSeconds) }}
- --watch-age-limit={{ int64 .Values.watchAgeLimitSeconds }}
{{- end }}
- --eks-compatible={{ .Values.eksCompatible }}
- --policy-required={{ .Values.policy.required }}
- --enforcement={{ .Values.enforcement }}
- {{ printf "--default-audience=%s" .Values.defaults.audience | quote }}
{{- with .Values.defaults.tokenExpirationSeconds }}
- --default-token-expiration={{ int64 . }}
{{- end }}
{{- with .Values.defaults.region }}
- --default-region={{ . }}
{{- end }}
{{- if not (kindIs "invalid" .Values.defaults.stsRegionalEndpoints) }}
- --sts-regional-endpoints={{ .Values.defaults.stsRegionalEndpoints }}
{{- end }}
- --disable-instance-metadata={{ .Values.aws.disableInstanceMetadata }}
- --lock-mode={{ .Values.lock.mode }}
{{- range include "tokenscope.lockedAudiences" . | fromJsonArray }}
- {{ printf "--lock-audience=%s" . | quote }}
{{- end }}
- --lock-policy-audiences={{ .Values.lock.policyAudiences }}
{{- range .Values.lock.csiDrivers }}
- {{ printf "--lock-csi-driver=%s" . | quote }}
{{- end }}
{{- /* An empty value says "none": without the flag the process has its own default. */}}
{{- range .Values.lock.exemptNamespaces | default (list "") }}
- {{ printf "--lock-exempt-namespace=%s" . | quote }}
{{- end }}
{{- range .Values.guard.excludeNamespaces | default (list "") }}
- {{ printf "--never-deny-namespace=%s" . | quote }}
{{- end }}
- {{ printf "--sidecar-image=%s" (include "tokenscope.image" (dict "root" . "component" "sidecar")) | quote }}
{{- end -}}

{{- /* The image of a process, or of the sidecar. Call with a dict: root, component (which names the values), or image (values). */ -}}
{{- define "tokenscope.image" -}}
{{- $image := .root.Values.image -}}
{{- $own := .image | default (index .root.Values (.component | default "sidecar")).image -}}
{{- $name := printf "%s%s" (empty $image.registry | ternary "" (printf "%s/" $image.registry)) $own.repository -}}
{{- empty $own.digest | ternary (printf "%s:%s" $name ($image.tag | default .root.Chart.AppVersion)) (printf "%s@%s" $name $own.digest) -}}
{{- end -}}

{{- /* Where operator and helm test have the client certificate that they show the webhook, in their containers. */ -}}
{{- define "tokenscope.probeFolder" -}}/etc/tokenscope/probe{{- end -}}

{{- /* The volume with that certificate and its key, where the webhook asks for one; else empty. Fails where the Secret is not named. */ -}}
{{- define "tokenscope.probeVolume" -}}
{{- with .Values.webhook.clientCertificates }}
{{- if .enabled -}}
name: probe
secret:
  secretName: {{ required "webhook.clientCertificates.enabled needs webhook.clientCertificates.probeSecret: the Secret with the client certificate (tls.crt, tls.key) that operator and helm test show the webhook. Without it both would be refused" .probeSecret }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The pod of a process. Call with a dict: root, component (which names the values, the container and the ServiceAccount), arguments, ports,
       gracePeriod (seconds), and optionally annotations, mounts and volumes. */ -}}
{{- define "tokenscope.podTemplate" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .component -}}
metadata:
  labels:
    {{- mergeOverwrite (dict) $root.Values.commonLabels $values.podLabels (include "tokenscope.labels" (list $root .component) | fromYaml) | toYaml | nindent 4 }}
  annotations:
    {{- mergeOverwrite (dict "kubectl.kubernetes.io/default-container" .component) $root.Values.commonAnnotations $values.podAnnotations (.annotations | default dict) | toYaml | nindent 4 }}
spec:
  serviceAccountName: tokenscope-{{ .component }}
  automountServiceAccountToken: true
  # Every flag can be given as TOKENSCOPE_<FLAG>; the kubelet's variables for Services of that prefix must not be among them.
  enableServiceLinks: false
  {{- with $root.Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- if $values.hostNetwork }}
  hostNetwork: true
  {{- end }}
  {{- with $values.dnsPolicy | default (empty $values.hostNetwork | ternary "" "ClusterFirstWithHostNet") }}
  dnsPolicy: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .gracePeriod }}
  {{- with $root.Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
  - name: {{ .component }}
    image: {{ include "tokenscope.image" (dict "root" $root "component" .component) | quote }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args:
    {{- .arguments | nindent 4 }}
    - {{ printf "--observe=%s:%d" $root.Values.listenAddress (int64 ($values.metricsPort | default 8080)) | quote }}
    {{- include "tokenscope.commonArguments" $root | nindent 4 }}
    {{- range $values.extraArgs }}
    - {{ . | quote }}
    {{- end }}
    env:
    - name: TOKENSCOPE_NAMESPACE
      valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
    - name: TOKENSCOPE_POD_NAME
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
    # Two heaps for all threads, not eight a core: what one has freed, another one uses.
    - {name: MALLOC_ARENA_MAX, value: "2"}
    ports:
    {{- with .ports }}
    {{- . | nindent 4 }}
    {{- end }}
    - {name: metrics, containerPort: {{ int64 ($values.metricsPort | default 8080) }}, protocol: TCP}
    livenessProbe:
      httpGet: {path: /livez, port: metrics}
      periodSeconds: 10
      timeoutSeconds: 3
      failureThreshold: 3
    readinessProbe:
      httpGet: {path: /readyz, port: metrics}
      periodSeconds: 5
      timeoutSeconds: 3
      failureThreshold: 2
    {{- with .preStopSeconds }}
    # The process closes its listener at once when it is told to stop; until then the endpoints have forgotten the pod.
    lifecycle:
      preStop:
        sleep: {seconds: {{ . }}}
    {{- end }}
    {{- with $values.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $root.Values.containerSecurityContext }}
    securityContext:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .mounts }}
    volumeMounts:
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .volumes }}
  volumes:
  {{- toYaml . | nindent 2 }}
  {{- end }}
  topologySpreadConstraints:
  {{- with $values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    # Per revision: the pods of the old one must not push those of the new one together.
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "tokenscope.selectorLabels" (list $root $.component) | nindent 8 }}
  {{- end }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* What reads the issuer's keys from a file: arguments, mounts and volumes; nothing where they are in the Secret. */}}
{{- define "tokenscope.keyFile" -}}
{{- $file := .Values.issuer.keys.file -}}
{{- $arguments := list -}}
{{- $mounts := list -}}
{{- $volumes := list -}}
{{- if $file.name -}}
{{- if not $file.volume -}}
{{- fail "issuer.keys.file.name needs issuer.keys.file.volume: the volume that the file is in, such as {secret: {secretName: …}}" -}}
{{- end -}}
{{- $arguments = append $arguments (printf "--keys-file=/etc/tokenscope/keys/%s" $file.name) -}}
{{- $mounts = append $mounts (dict "name" "keys" "mountPath" "/etc/tokenscope/keys" "readOnly" true) -}}
{{- $volumes = append $volumes (mergeOverwrite (dict) $file.volume (dict "name" "keys")) -}}
{{- if $file.identity -}}
{{- if not $file.identityVolume -}}
{{- fail "issuer.keys.file.identity needs issuer.keys.file.identityVolume: the volume that the identity is in, which should not be the one of the keys" -}}
{{- end -}}
{{- $arguments = append $arguments (printf "--keys-identity=/etc/tokenscope/keys-identity/%s" $file.identity) -}}
{{- $mounts = append $mounts (dict "name" "keys-identity" "mountPath" "/etc/tokenscope/keys-identity" "readOnly" true) -}}
{{- $volumes = append $volumes (mergeOverwrite (dict) $file.identityVolume (dict "name" "keys-identity")) -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "arguments" $arguments "mounts" $mounts "volumes" $volumes) -}}
{{- end -}}
