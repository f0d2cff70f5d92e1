{{/* The name of all objects: that of the release, with the chart's if it does not say so. */}}
{{- define "batcher.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which pods are found. They never change for a release. */}}
{{- define "batcher.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "batcher.labels" -}}
{{ include "batcher.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* The key of a model's file in the ConfigMap, which takes no `/`; no two paths have the same. */}}
{{- define "batcher.key" -}}
{{ . | replace "_" "__" | replace "/" "_." | quote }}
{{- end -}}

{{/* What a probe says besides, where servers speak TLS. */}}
{{- define "batcher.scheme" -}}
{{ with .Values.settings.tls_certificate }}, scheme: HTTPS{{ end }}
{{- end -}}

{{/* How fast the number of servers changes, by whatever autoscaler. */}}
{{- define "batcher.behavior" -}}
scaleUp:
  policies:
    - {type: Percent, value: 100, periodSeconds: 60}
    - {type: Pods, value: 2, periodSeconds: 60}
scaleDown:
  stabilizationWindowSeconds: 300
  policies:
    - {type: Pods, value: 1, periodSeconds: 60}
{{- end -}}
