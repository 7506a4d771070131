{{- define "seqrec.name" -}}
{{- if contains "seqrec" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-seqrec" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "seqrec.selector" -}}
app.kubernetes.io/name: seqrec
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "seqrec.labels" -}}
{{ include "seqrec.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "seqrec.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "seqrec.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "seqrec.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "seqrec.env" -}}
- {name: SEQREC_HOME, value: /var/lib/seqrec}
{{- if .Values.redis.included }}
- {name: SEQREC_REDIS_URL, value: {{ printf "redis://%s-redis:6379/0" (include "seqrec.name" .) | quote }}}
{{- else if .Values.redis.urlSecret.name }}
- name: SEQREC_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.redis.urlSecret.name }}, key: {{ .Values.redis.urlSecret.key }}}}
{{- else }}
- {name: SEQREC_REDIS_URL, value: {{ required "redis.url, redis.urlSecret.name or redis.included: pods share no SQLite" .Values.redis.url | quote }}}
{{- end }}
{{- if .Values.milvus.urlSecret.name }}
- name: SEQREC_MILVUS_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.milvus.urlSecret.name }}, key: {{ .Values.milvus.urlSecret.key }}}}
{{- else if .Values.milvus.url }}
- {name: SEQREC_MILVUS_URL, value: {{ .Values.milvus.url | quote }}}
{{- end }}
{{- range $name, $value := .Values.settings }}
- {name: SEQREC_{{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "seqrec.volumes" -}}
- name: home
  persistentVolumeClaim: {claimName: {{ .Values.home.existingClaim | default (printf "%s-home" (include "seqrec.name" .)) }}}
- {name: tmp, emptyDir: {}}
{{- end }}

{{- define "seqrec.mounts" -}}
- {name: home, mountPath: /var/lib/seqrec}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- /* A job of the command line: (list root name image args resources) */ -}}
{{- define "seqrec.job" -}}
{{- $root := index . 0 }}
concurrencyPolicy: Forbid
successfulJobsHistoryLimit: 2
failedJobsHistoryLimit: 3
jobTemplate:
  spec:
    backoffLimit: 1
    template:
      metadata:
        labels:
          {{- include "seqrec.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ index . 1 }}
      spec:
        restartPolicy: Never
        automountServiceAccountToken: false
        enableServiceLinks: false
        securityContext:
          {{- include "seqrec.podSecurity" $root | nindent 10 }}
        {{- with $root.Values.imagePullSecrets }}
        imagePullSecrets: {{ toJson . }}
        {{- end }}
        containers:
          - name: {{ index . 1 }}
            image: {{ index . 2 | quote }}
            imagePullPolicy: {{ $root.Values.image.pullPolicy }}
            args: {{ toJson (index . 3) }}
            securityContext:
              {{- include "seqrec.containerSecurity" $root | nindent 14 }}
            env:
              {{- include "seqrec.env" $root | nindent 14 }}
            resources: {{ toJson (index . 4) }}
            volumeMounts:
              {{- include "seqrec.mounts" $root | nindent 14 }}
        volumes:
          {{- include "seqrec.volumes" $root | nindent 10 }}
{{- end }}
