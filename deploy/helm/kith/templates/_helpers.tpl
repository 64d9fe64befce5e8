{{- define "kith.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/name: kith
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion }}
app.kubernetes.io/component: cni
app.kubernetes.io/part-of: kith
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* The folders of the node that the configuration names. */ -}}
{{- define "kith.binDir" -}}{{ dig "cni" "binDir" "/opt/cni/bin" .Values.config }}{{- end }}
{{- define "kith.confDir" -}}{{ dig "cni" "confDir" "/etc/cni/net.d" .Values.config }}{{- end }}
{{- define "kith.stateDir" -}}{{ dig "stateDir" "/var/lib/kith" .Values.config }}{{- end }}
{{- define "kith.runDir" -}}{{ dig "runDir" "/run/kith" .Values.config }}{{- end }}

{{- /* The agent's configuration: all keys as comments, then those that the values set. A folder that they set is not
called the default any more. */ -}}
{{- define "kith.config" -}}
{{- $text := .Files.Get "files/kith.yaml" | trim | replace "kith-system" .Release.Namespace -}}
{{- range $key, $path := dict "binDir" (include "kith.binDir" .) "confDir" (include "kith.confDir" .) "stateDir" (include "kith.stateDir" .) "runDir" (include "kith.runDir" .) -}}
{{- $text = regexReplaceAll (printf "(?m)^( *)#%s: .*$" $key) $text (printf "${1}#%s: %s" $key $path) -}}
{{- end -}}
{{- regexReplaceAll "(?m)^ +$" ($text | indent 4) "" }}
{{- with .Values.config }}

{{ toYaml . | indent 4 }}
{{- end }}
{{- end }}
