{{- define "lingerd.settings" -}}
{{ .Files.Get "lingerd.toml" }}
{{- if ne (toString .Values.live) "loopback" }}live = {{ toJson .Values.live }}
{{ end }}
{{- .Values.settings }}
{{- end }}
