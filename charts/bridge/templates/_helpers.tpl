{{- define "bridge.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- /* Call with (dict "root" $ "component" "gateway"). */ -}}
{{- define "bridge.selector" -}}
app.kubernetes.io/name: bridge
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "bridge.labels" -}}
{{ include "bridge.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: bridge
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- define "bridge.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "bridge.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "bridge.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "bridge.tokensSecret" -}}
{{- .Values.tokens.existingSecret | default "bridge-tokens" -}}
{{- end -}}

{{- define "bridge.appSecret" -}}
{{- .Values.github.app.existingSecret | default "bridge-github-app" -}}
{{- end -}}

{{- define "bridge.keyVolume" -}}
{{- if .Values.github.app.id }}
- name: github-app
  secret:
    secretName: {{ include "bridge.appSecret" . | quote }}
    defaultMode: 0440
    items:
      - key: private-key
        path: private-key.pem
{{- end }}
{{- end -}}

{{- define "bridge.keyMount" -}}
{{- if .Values.github.app.id }}
- name: github-app
  mountPath: /var/run/secrets/github-app
  readOnly: true
{{- end }}
{{- end -}}

{{- define "bridge.notificationsVolume" -}}
{{- with .Values.notifications.existingSecret }}
- name: notifications
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- define "bridge.notificationsMount" -}}
{{- if .Values.notifications.existingSecret }}
- name: notifications
  mountPath: /var/run/secrets/notifications
  readOnly: true
{{- end }}
{{- end -}}

{{- /* What gateway and controller are both told. */ -}}
{{- define "bridge.config" -}}
BRIDGE_NAMESPACE: {{ .Values.workflows.namespace | quote }}
BRIDGE_BRIGADE_NAMESPACE: {{ .Values.brigade.namespace | quote }}
BRIDGE_LOG_LEVEL: {{ .Values.logLevel | quote }}
BRIDGE_GITHUB_API_URL: {{ .Values.github.apiUrl | quote }}
{{- with .Values.publicUrl }}
BRIDGE_PUBLIC_URL: {{ . | quote }}
{{- end }}
{{- with .Values.github.webhookUrl }}
BRIDGE_WEBHOOK_URL: {{ . | quote }}
{{- end }}
{{- with .Values.github.app.id }}
{{- /* A large number in YAML is a float here and would be written as 1.2e+06. */}}
BRIDGE_GITHUB_APP_ID: {{ kindIs "string" . | ternary . (. | int64 | toString) | quote }}
BRIDGE_GITHUB_APP_KEY_FILE: /var/run/secrets/github-app/private-key.pem
{{- end }}
{{- end -}}

{{- define "bridge.gatewayConfig" -}}
{{ include "bridge.config" . }}
BRIDGE_HOST: 0.0.0.0
BRIDGE_PORT: "8080"
BRIDGE_WEB_WORKERS: {{ .Values.gateway.workers | quote }}
BRIDGE_WEB_THREADS: {{ .Values.gateway.threads | quote }}
BRIDGE_ANONYMOUS_READ: {{ .Values.anonymousRead | quote }}
BRIDGE_BADGES: {{ .Values.badges | quote }}
BRIDGE_SESSION_HOURS: {{ .Values.signIn.sessionHours | quote }}
{{- with .Values.signIn.proxy }}
{{- if .addresses }}
BRIDGE_PROXY_ADDRESSES: {{ join "," .addresses | quote }}
BRIDGE_PROXY_USER_HEADER: {{ .userHeader | quote }}
BRIDGE_PROXY_GROUPS_HEADER: {{ .groupsHeader | quote }}
BRIDGE_PROXY_ACT_USERS: {{ join "," .actUsers | quote }}
BRIDGE_PROXY_ACT_GROUPS: {{ join "," .actGroups | quote }}
{{- end }}
{{- end }}
BRIDGE_STEP_SERVICE_ACCOUNT: bridge-step
{{- with .Values.fallbackUrl }}
BRIDGE_FALLBACK_URL: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "bridge.controllerConfig" -}}
{{ include "bridge.config" . }}
BRIDGE_LEASE_NAMESPACE: {{ .Release.Namespace | quote }}
BRIDGE_CONTROLLER_HOST: 0.0.0.0
BRIDGE_CONTROLLER_PORT: "8081"
BRIDGE_RETENTION_DAYS: {{ .Values.retention.days | quote }}
BRIDGE_RETENTION_RUNS: {{ .Values.retention.runs | int64 | quote }}
BRIDGE_SWEEP_MINUTES: {{ .Values.github.sweepMinutes | quote }}
BRIDGE_GITHUB_CHECKS: {{ .Values.github.checks | quote }}
{{- with .Values.workflows.argoInstanceID }}
BRIDGE_ARGO_INSTANCE_ID: {{ . | quote }}
{{- end }}
BRIDGE_NOTIFY_DAYS: {{ .Values.notifications.days | quote }}
{{- if .Values.notifications.existingSecret }}
BRIDGE_NOTIFY_FILE: /var/run/secrets/notifications/endpoints.yaml
{{- end }}
{{- end -}}

{{- /* How pods are placed: call with (dict "root" $ "component" "gateway" "values" .Values.gateway). */ -}}
{{- define "bridge.placement" -}}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "bridge.selector" . | nindent 8 }}
{{- end -}}

{{- /* Call with (dict "root" $ "urls" (list …)): DNS, the listed ports, and those that the URLs name. */ -}}
{{- define "bridge.egress" -}}
{{- $ports := .root.Values.networkPolicies.egressPorts }}
{{- range .urls }}
{{- $named := regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" }}
{{- if $named }}
{{- $ports = append $ports (int $named) }}
{{- else if hasPrefix "http://" . }}
{{- $ports = append $ports 80 }}
{{- end }}
{{- end }}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    {{- range $ports | uniq }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- with .root.Values.networkPolicies.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "bridge.check" -}}
{{- if and (not .Values.allowSharedNamespace) (has .Release.Namespace (list .Values.workflows.namespace .Values.brigade.namespace)) -}}
{{- fail (printf "\n\nThe release's namespace is %s, which workflows.namespace or brigade.namespace names too. The steps' ServiceAccount\nreads every Secret there, the App's key and the tokens as well: install with another --namespace, or set\nallowSharedNamespace to true.\n" .Release.Namespace) -}}
{{- end -}}
{{- if and .Values.github.app.id (not .Values.github.app.existingSecret) (not .Values.github.app.privateKey) -}}
{{- fail "\n\ngithub.app.id needs the App's private key: name a Secret in github.app.existingSecret, or set github.app.privateKey.\n" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "\n\ningress.enabled needs ingress.host: the name that webhooks are sent to.\n" -}}
{{- end -}}
{{- end -}}
