{{/* What the manager and the keyserver would refuse when they start, said before anything is installed. Each "problem" is a text, or empty; a test
holds them against the programs. */}}

{{/* Of a block of addresses: a dictionary of text, and of the fewest bits that it may have as IPv4 (least4) and as IPv6 (least6). */}}
{{- define "lethe.blockProblem" -}}
{{- $parts := splitList "/" .text -}}
{{- $address := first $parts | lower -}}
{{- $octet := "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])" -}}
{{- $hex := "" -}}
{{- if regexMatch (printf "^%s([.]%s){3}$" $octet $octet) $address -}}
{{- range splitList "." $address }}{{ $hex = printf "%s%02x" $hex (int .) }}{{ end -}}
{{- else -}}
{{- $halves := splitList "::" $address -}}
{{- $groups := list -}}
{{- $broken := gt (len $halves) 2 -}}
{{- range $i, $half := $halves -}}
{{- if $half }}{{ $groups = concat $groups (splitList ":" $half) }}{{ end -}}
{{- if and (eq $i 0) (eq (len $halves) 2) -}}
{{- $right := ternary (splitList ":" (last $halves)) list (ne (last $halves) "") -}}
{{- if gt (add (len $groups) (len $right)) 7 }}{{ $broken = true }}{{ end -}}
{{- range until (max 0 (sub 8 (add (len $groups) (len $right))) | int) }}{{ $groups = append $groups "0" }}{{ end -}}
{{- end -}}
{{- end -}}
{{- range $groups }}{{ if regexMatch "^[0-9a-f]{1,4}$" . }}{{ $hex = printf "%s%s" $hex (trunc -4 (printf "000%s" .)) }}{{ else }}{{ $broken = true }}{{ end }}{{ end -}}
{{- if or $broken (ne (len $hex) 32) }}{{ $hex = "" }}{{ end -}}
{{- end -}}
{{- $length := mul 4 (len $hex) | int -}}
{{- $bits := $length -}}
{{- if eq (len $parts) 2 -}}
{{- $bits = ternary (last $parts | atoi) 999 (regexMatch "^[1-9][0-9]{0,2}$" (last $parts)) -}}
{{- end -}}
{{- $least := ternary .least4 .least6 (eq $length 32) | int -}}
{{- if or (eq $hex "") (gt (len $parts) 2) (gt $bits $length) -}}
{{ printf "%q is no address and no block of addresses such as 203.0.113.7/32" .text }}
{{- else if regexMatch "^0{20}ffff" $hex -}}
{{ printf "%q is a form of IPv6 that hides an IPv4 address: write that" .text }}
{{- else if not (regexMatch (printf "^[0-9a-f]{%d}[%s]?0*$" (div $bits 4) (index (list "0" "08" "048c" "02468ace") (mod $bits 4 | int))) $hex) -}}
{{ printf "%q has bits set behind its length: write the first address of the block before the /, or %s/%d for the one address" .text $address $length }}
{{- else if lt $bits $least -}}
{{ printf "%q is wider than /%d: name the addresses that answer DNS" .text $least }}
{{- end -}}
{{- end -}}

{{/* Of a port for DNS: opening one of API servers, kubelets, etcd or metadata services for DNS opens those. */}}
{{- define "lethe.dnsPortProblem" -}}
{{- if has (int .) (list 80 443 2379 2380 6443 8443 10250 10255 16443) -}}
{{ printf "port %d is not DNS', but one of API servers, kubelets or metadata services" (int .) }}
{{- end -}}
{{- end -}}

{{/* Of an annotation, or a prefix of annotations. */}}
{{- define "lethe.annotationProblem" -}}
{{- $key := trimSuffix "*" . -}}
{{- if or (hasPrefix "lethe.dev/" .) (eq $key "") -}}
{{ printf "%q would let in any annotation, or Lethe's own" . }}
{{- else if and (ne $key .) (not (hasSuffix "/" $key)) -}}
{{ printf "%q is no prefix that ends a domain: write example.com/*" . }}
{{- end -}}
{{- end -}}

{{/* Of an annotation that bots may ask for: none that container runtimes or network plugins act on. */}}
{{- define "lethe.botAnnotationProblem" -}}
{{- $entry := . -}}
{{- $key := trimSuffix "*" $entry -}}
{{- $acts := false -}}
{{- range list "cdi.k8s.io/" "cni.projectcalico.org/" "dev.gvisor." "k8s.ovn.org/" "org.systemd.property." "ovn.kubernetes.io/" "policy.cilium.io/" "run.oci." "container.apparmor.security.beta.kubernetes.io/" "container.seccomp.security.alpha.kubernetes.io/" "io.containerd." "io.katacontainers." "io.kubernetes.cri" "k8s.v1.cni.cncf.io/" "seccomp.security.alpha.kubernetes.io/" "v1.multus-cni.io/" -}}
{{- if or (hasPrefix . $key) (and (ne $key $entry) (hasPrefix $key .)) }}{{ $acts = true }}{{ end -}}
{{- end -}}
{{- $problem := include "lethe.annotationProblem" $entry -}}
{{- if $problem -}}
{{ $problem }}
{{- else if $acts -}}
{{ printf "%q would let bots set what container runtimes or network plugins act on" $entry }}
{{- end -}}
{{- end -}}

{{/* Of the name of an image. The schema holds its form. */}}
{{- define "lethe.imageProblem" -}}
{{- if regexMatch "^[0-9a-f]{64}$" . -}}
{{ printf "%q is the identifier of an image and not its name" . }}
{{- else if gt (len (regexFind "^([^/]*/)?[^:@]*" .)) 255 -}}
{{ printf "%q has more than 255 characters before tag and digest" . }}
{{- else if gt (len .) 300 -}}
{{ printf "%q has more than 300 characters" . }}
{{- end -}}
{{- end -}}

{{/* Of the keyserver's memory limit, which its connections must fit into (docs/design/0006-doors.md). */}}
{{- define "lethe.memoryProblem" -}}
{{- $text := toString . -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $bytes := -1.0 -}}
{{- if or (kindIs "float64" .) (kindIs "int64" .) (kindIs "int" .) -}}
{{- $bytes = float64 . -}}
{{- else if and (regexMatch "^[0-9]+([.][0-9]+)?[A-Za-z]*$" $text) (hasKey $units $unit) -}}
{{- $bytes = mulf (float64 (trimSuffix $unit $text)) (get $units $unit) -}}
{{- end -}}
{{- if lt $bytes 0.0 -}}
{{ printf "%q is no quantity of bytes such as 256Mi" $text }}
{{- else if lt $bytes 268435456.0 -}}
{{ printf "%q is less than 256Mi, which the connections that are let in can take" $text }}
{{- end -}}
{{- end -}}

{{/* All of them. */}}
{{- define "lethe.checkPrograms" -}}
{{- $problems := list -}}
{{- range .Values.dns.ports }}{{ with include "lethe.dnsPortProblem" . }}{{ $problems = append $problems (printf "dns.ports: %s." .) }}{{ end }}{{ end -}}
{{- range .Values.dns.blocks }}{{ with include "lethe.blockProblem" (dict "text" . "least4" 16 "least6" 32) }}{{ $problems = append $problems (printf "dns.blocks: %s." .) }}{{ end }}{{ end -}}
{{- range .Values.networkPolicy.closedAddresses }}{{ with include "lethe.blockProblem" (dict "text" . "least4" 1 "least6" 1) }}{{ $problems = append $problems (printf "networkPolicy.closedAddresses: %s." .) }}{{ end }}{{ end -}}
{{- range .Values.networkPolicy.apiServerBlocks }}{{ with include "lethe.blockProblem" (dict "text" . "least4" 1 "least6" 1) }}{{ $problems = append $problems (printf "networkPolicy.apiServerBlocks: %s." .) }}{{ end }}{{ end -}}
{{- range .Values.pods.annotations }}{{ with include "lethe.annotationProblem" . }}{{ $problems = append $problems (printf "pods.annotations: %s." .) }}{{ end }}{{ end -}}
{{- range .Values.pods.botAnnotations }}{{ with include "lethe.botAnnotationProblem" . }}{{ $problems = append $problems (printf "pods.botAnnotations: %s." .) }}{{ end }}{{ end -}}
{{- with include "lethe.imageProblem" (include "lethe.image" .) }}{{ $problems = append $problems (printf "image: %s." .) }}{{ end -}}
{{- range .Values.image.previous }}{{ with include "lethe.imageProblem" (regexReplaceAll "@.*" . "") }}{{ $problems = append $problems (printf "image.previous: %s." .) }}{{ end }}{{ end -}}
{{- range .Values.image.retired }}{{ with include "lethe.imageProblem" . }}{{ $problems = append $problems (printf "image.retired: %s." .) }}{{ end }}{{ end -}}
{{- if has (include "lethe.image" .) .Values.image.retired -}}
{{- $problems = append $problems (printf "image.retired names %s, the image of this release: set image.tag or image.digest to a later one, or take it off the list." (include "lethe.image" .)) -}}
{{- end -}}
{{- $names := list }}{{ range .Values.image.pullSecrets }}{{ $names = append $names .name }}{{ end -}}
{{- if gt (len (join "," $names)) 400 }}{{ $problems = append $problems "image.pullSecrets: the names have more than 400 characters together." }}{{ end -}}
{{- if eq .Values.keysNamespace .Release.Namespace -}}
{{- $problems = append $problems (printf "keysNamespace is %q, the namespace of the release: wrapped keys have one of their own, in which nothing else is." .Values.keysNamespace) -}}
{{- end -}}
{{- with (.Values.keyserver.resources.limits | default dict).memory -}}
{{- with include "lethe.memoryProblem" . }}{{ $problems = append $problems (printf "keyserver.resources.limits.memory: %s." .) }}{{ end -}}
{{- end -}}
{{- if $problems }}{{ fail (join " " $problems) }}{{ end -}}
{{- end -}}
