{{/* Start of all names. A StatefulSet's name may have 52 characters, and "-clickhouse" is the longest end. */}}
{{- define "devstack.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 41 | trimSuffix "-" }}
{{- end }}

{{/* What selects a component's pods. Of a StatefulSet it can't change. */}}
{{- define "devstack.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "devstack.labels" -}}
{{ include "devstack.selectorLabels" . }}
app.kubernetes.io/part-of: swapstats
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Name of the Secret with the passwords. */}}
{{- define "devstack.passwords" -}}
{{- .Values.auth.existingSecret | default (printf "%s-passwords" (include "devstack.fullname" .)) }}
{{- end }}

{{- define "devstack.image" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* What every pod has: nothing of Kubernetes' API, no root, no privilege. */}}
{{- define "devstack.podSpec" -}}
serviceAccountName: {{ include "devstack.fullname" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "devstack.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
