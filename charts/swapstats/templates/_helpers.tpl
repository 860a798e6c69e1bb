{{/* Name of the operator's objects: the release's, which says what it is. */}}
{{- define "swapstats.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s-operator" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "swapstats.selector" -}}
app.kubernetes.io/name: swapstats-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "swapstats.labels" -}}
{{ include "swapstats.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: swapstats
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image: dict "root" . "name" "operator" */}}
{{- define "swapstats.image" -}}
{{- $image := .root.Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{ $image.repository }}/{{ .name }}:{{ default .root.Chart.AppVersion $image.tag }}
{{- end -}}

{{/* Namespaces that are looked after, unless all are. */}}
{{- define "swapstats.namespaces" -}}
{{- append .Values.watchNamespaces .Release.Namespace | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* What the operator may do where it looks after resources; docs/rbac.md has it as kubectl tells it. */}}
{{- define "swapstats.rules" -}}
- apiGroups: [swapstats.io]
  resources: [swapstats]
  verbs: [get, list, watch, patch]
- apiGroups: [swapstats.io]
  resources: [swapstats/status]
  verbs: [patch]
- apiGroups: [swapstats.io]
  resources: [swapstats/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [secrets]
  {{- with .Values.rbac.secretNames }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors, prometheusrules]
  verbs: [get, list, watch, create, patch, delete]
{{- end -}}
