{{/* The image of every program. */}}
{{- define "lethe.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Arguments that the manager and the keyserver share: both render the same pods, one to make them, one to recognise them. */}}
{{- define "lethe.commonArgs" -}}
- --image=$(LETHE_IMAGE)
- --image-pull-policy={{ .Values.image.pullPolicy }}
- --namespace={{ .Release.Namespace }}
- --keys-namespace={{ .Values.keysNamespace }}
- --keyserver-url=https://lethe-keyserver.{{ .Release.Namespace }}.svc:8443
- --dns-namespace={{ .Values.dns.namespace }}
- --dns-pod-labels={{ range $i, $key := keys .Values.dns.podLabels | sortAlpha }}{{ if $i }},{{ end }}{{ $key }}={{ index $.Values.dns.podLabels $key }}{{ end }}
- --dns-ports={{ join "," .Values.dns.ports }}
{{- with .Values.dns.blocks }}
- --dns-blocks={{ join "," . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
- --image-pull-secrets={{ range $i, $secret := . }}{{ if $i }},{{ end }}{{ $secret.name }}{{ end }}
{{- end }}
{{- with .Values.networkPolicy.closedAddresses }}
- --closed-addresses={{ join "," . }}
{{- end }}
{{- with .Values.image.retired }}
- --retired-images={{ join "," . }}
{{- end }}
{{- with .Values.pods.annotations }}
- --pod-annotations={{ join "," . }}
{{- end }}
{{- with .Values.pods.botAnnotations }}
- --bot-annotations={{ join "," . }}
{{- end }}
{{- end -}}

{{/* Each program has a user id of its own, outside every tenant's range: what the kernel counts by user is nobody else's to use up. */}}
{{- define "lethe.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "lethe.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "lethe.probes" -}}
startupProbe:
  httpGet:
    path: /healthz
    port: health
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet:
    path: /healthz
    port: health
  periodSeconds: 20
readinessProbe:
  httpGet:
    path: /readyz
    port: health
  periodSeconds: 5
{{- end -}}

{{- define "lethe.scheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* How the replicas of a program are spread: a dictionary of the root and the program's name. */}}
{{- define "lethe.spread" -}}
{{- $component := .component -}}
topologySpreadConstraints:
{{- range .root.Values.topologySpread }}
  - maxSkew: {{ .maxSkew | default 1 }}
    topologyKey: {{ .topologyKey }}
    whenUnsatisfiable: {{ .whenUnsatisfiable | default "ScheduleAnyway" }}
    labelSelector:
      matchLabels:
        app.kubernetes.io/name: lethe
        app.kubernetes.io/component: {{ $component }}
{{- end }}
{{- end -}}

{{/* Labels and annotations of a program's pods, beside Lethe's own: the values of that program. */}}
{{- define "lethe.podLabels" -}}
{{- with .podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What a schema can refuse but not explain. */}}
{{- define "lethe.check" -}}
{{- if not .Values.realm -}}
{{- fail "realm is required: choose a name for this installation, for example --set realm=production-eu. It is bound into every sealed value and cannot be changed later." -}}
{{- end -}}
{{- with lookup "v1" "ConfigMap" .Release.Namespace "lethe-realm" -}}
{{- if ne .data.realm $.Values.realm -}}
{{- fail (printf "realm cannot be changed: this installation is %q and everything that was sealed or wrapped is bound to that name, the values say %q. Set realm back." .data.realm $.Values.realm) -}}
{{- end -}}
{{- end -}}
{{- if has .Values.kek.file .Values.kek.previous -}}
{{- fail "kek.file stands in kek.previous too: the new key-encryption key and those before it are different files." -}}
{{- end -}}
{{- if eq .Values.kek.source "Volume" -}}
{{- if not .Values.kek.volume -}}
{{- fail "kek.volume is required when kek.source is Volume: name the volume that holds the key-encryption key, for example --set kek.volume.persistentVolumeClaim.claimName=lethe-kek. 'kubectl lethe keys generate-kek' makes a key; docs/install.md shows the way." -}}
{{- end -}}
{{- if or .Values.kek.secretName .Values.kek.acceptEvaluationGrade -}}
{{- fail "kek.secretName and kek.acceptEvaluationGrade belong to kek.source=EvaluationSecret; kek.source is Volume." -}}
{{- end -}}
{{- else -}}
{{- if not .Values.kek.acceptEvaluationGrade -}}
{{- fail "kek.source=EvaluationSecret puts the key-encryption key into the same etcd as what it protects: whoever has a snapshot has every credential. Set kek.acceptEvaluationGrade=true to accept that, or use kek.source=Volume." -}}
{{- end -}}
{{- if not .Values.kek.secretName -}}
{{- fail "kek.secretName is required when kek.source is EvaluationSecret: the name of a Secret in this namespace that holds the key under kek.file." -}}
{{- end -}}
{{- if .Values.kek.volume -}}
{{- fail "kek.volume belongs to kek.source=Volume; kek.source is EvaluationSecret." -}}
{{- end -}}
{{- end -}}
{{- end -}}
