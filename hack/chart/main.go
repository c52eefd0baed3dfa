// Command chart copies what config/ holds as generated or hand-written YAML into the Helm chart's templates: the
// CRDs, the roles, the admission policies, the priority classes, and what Prometheus is told. It puts the release's
// namespace where config/ says lethe-system. What has values (the Deployments and what belongs to them) is written by
// hand in the chart; a test holds both against each other.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const header = "{{/* Copied from %s by `make manifests`. Do not edit. */}}\n"

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: chart CONFIG-FOLDER CHART-FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(config, chart string) error {
	for _, part := range []struct {
		from, to string
		convert  func(string) (string, error)
		braces   bool // it may hold {{, which convert escapes
	}{
		{"crd/bases", "templates/crds", keepCRD, false},
		{"rbac", "templates/rbac", withRBAC, false},
		{"admission", "templates/admission", withNamespaces, false},
		{"guard", "templates/guard", withNamespaces, false},
		{"finalizer", "templates/finalizer", withFinalizer, false},
		{"flowcontrol", "templates/flowcontrol", withShares, false},
		{"manager/priorityclasses.yaml", "templates/priorityclasses", withNamespaces, false},
		{"monitoring", "templates/monitoring", withMonitoring, true},
	} {
		if err := copyAll(filepath.Join(config, part.from), filepath.Join(chart, part.to), part.convert, part.braces); err != nil {
			return err
		}
	}
	return nil
}

// copyAll converts the YAML files of a folder, or one file, and removes what is no longer there.
func copyAll(from, to string, convert func(string) (string, error), braces bool) error {
	files := []string{from}
	if info, err := os.Stat(from); err != nil {
		return err
	} else if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(from, "*.yaml")); err != nil {
			return err
		}
	}
	if err := errors.Join(os.RemoveAll(to), os.MkdirAll(to, 0o755)); err != nil {
		return err
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		// Braces would be read as a template.
		if !braces && strings.Contains(string(content), "{{") {
			return fmt.Errorf("%s holds {{, which Helm would read as a template", file)
		}
		converted, err := convert(string(content))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), []byte(fmt.Sprintf(header, filepath.ToSlash(file))+converted), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// keepCRD makes an uninstall leave the CRD, and all objects of its kind, where they are.
func keepCRD(content string) (string, error) {
	const annotations = "\n  annotations:\n"
	if strings.Count(content, annotations) != 1 {
		return "", errors.New("want one block of annotations in the metadata")
	}
	return "{{- if .Values.crds.install }}\n" +
		strings.Replace(content, annotations, annotations+"    helm.sh/resource-policy: keep\n", 1) +
		"{{- end }}\n", nil
}

// withShares makes flow control optional, and the shares of the two priority levels values: the first is Lethe's own.
func withShares(content string) (string, error) {
	converted, err := withNamespaces(content)
	if err != nil {
		return "", err
	}
	for _, value := range []string{"ownShares", "tenantShares"} {
		shares := regexp.MustCompile(`nominalConcurrencyShares: \d+`).FindString(converted)
		if shares == "" {
			return "", errors.New("want the shares of two priority levels")
		}
		converted = strings.Replace(converted, shares, "nominalConcurrencyShares: {{ .Values.flowControl."+value+" }}", 1)
	}
	return "{{- if .Values.flowControl.install }}\n" + converted + "{{- end }}\n", nil
}

// withFinalizer leaves out what the cluster's API server does not serve, or what nobody wants. Helm asks the cluster,
// and `helm template` its --api-versions.
func withFinalizer(content string) (string, error) {
	const kind = "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingAdmissionPolicy\n"
	if strings.Count(content, kind) != 1 {
		return "", errors.New("want one MutatingAdmissionPolicy of version v1")
	}
	converted, err := withNamespaces(content)
	if err != nil {
		return "", err
	}
	return "{{- if and .Values.botFinalizer.install (.Capabilities.APIVersions.Has \"admissionregistration.k8s.io/v1/MutatingAdmissionPolicy\") }}\n" + converted + "{{- end }}\n", nil
}

// withMonitoring makes an object of the Prometheus Operator optional, since a cluster may not have its kind, gives it
// the labels that the operator looks for, and keeps the braces of the alerts' own templates.
func withMonitoring(content string) (string, error) {
	const labels = "    app.kubernetes.io/component: monitoring\n"
	kind := regexp.MustCompile(`(?m)^kind: (PodMonitor|PrometheusRule)$`).FindStringSubmatch(content)
	if kind == nil || strings.Count(content, labels) != 1 {
		return "", errors.New("want one PodMonitor or PrometheusRule with the component monitoring")
	}
	content = strings.NewReplacer("{{", `{{ "{{" }}`, "}}", `{{ "}}" }}`).Replace(content)
	converted, err := withNamespaces(content)
	if err != nil {
		return "", err
	}
	value := ".Values.monitoring." + strings.ToLower(kind[1][:1]) + kind[1][1:]
	converted = strings.Replace(converted, labels, labels+"    {{- with .Values.monitoring.labels }}\n    {{- toYaml . | nindent 4 }}\n    {{- end }}\n", 1)
	converted = strings.Replace(converted, "interval: 30s", "interval: {{ "+value+".interval }}", 1)
	return "{{- if " + value + ".enabled }}\n" + converted + "{{- end }}\n", nil
}

// namespaces that are not spelt out in a chart: the release's own, and that of the keys.
var namespaces = regexp.MustCompile(`\blethe-(system|keys)\b`)

// kindRules are the rules for one kind each of networkPolicy.kinds, all alike.
var kindRules = regexp.MustCompile(`(?ms)^( *)# begin networkPolicy\.kinds\n(.*?)^ *# end networkPolicy\.kinds\n`)

// withKinds puts a loop over networkPolicy.kinds where config/ has a rule for each of the default ones.
func withKinds(content string) (string, error) {
	block := kindRules.FindStringSubmatch(content)
	if block == nil {
		return content, nil
	}
	rules := strings.SplitAfter(block[2], "\n"+block[1]+"- ")
	first := strings.TrimSuffix(strings.TrimSuffix(rules[0], "- "), block[1])
	group := regexp.MustCompile(`apiGroups: \[(.*)\]`).FindStringSubmatch(first)
	resource := regexp.MustCompile(`resources: \[([a-z]+)`).FindStringSubmatch(first)
	if group == nil || resource == nil || len(rules) < 2 {
		return "", errors.New("the rules of networkPolicy.kinds are not one for each kind, with apiGroups and resources")
	}
	looped := strings.NewReplacer("["+group[1]+"]", "[{{ .group | quote }}]", resource[1], "{{ .resource }}").Replace(first)
	loop := block[1] + "{{- range .Values.networkPolicy.kinds }}\n" + looped + block[1] + "{{- end }}\n"
	return strings.Replace(content, block[0], loop, 1), nil
}

// withRBAC gives the programs' accounts the annotations by which clouds know them, and makes what is added to
// Kubernetes' own roles optional.
func withRBAC(content string) (string, error) {
	converted, err := withNamespaces(content)
	if err != nil {
		return "", err
	}
	if strings.Contains(converted, "rbac.authorization.k8s.io/aggregate-to-") {
		return "{{- if .Values.rbac.aggregate }}\n" + converted + "{{- end }}\n", nil
	}
	if !strings.Contains(converted, "\nkind: ServiceAccount\nmetadata:") {
		return converted, nil
	}
	for _, program := range []string{"manager", "keyserver"} {
		label := "    app.kubernetes.io/component: " + program + "\n"
		if strings.Count(converted, label) != 1 {
			return "", fmt.Errorf("want one ServiceAccount of the %s", program)
		}
		converted = strings.Replace(converted, label, label+"  {{- with .Values."+program+".serviceAccount.annotations }}\n  annotations:\n    {{- toYaml . | nindent 4 }}\n  {{- end }}\n", 1)
	}
	return converted, nil
}

func withNamespaces(content string) (string, error) {
	const release, keys = "{{ .Release.Namespace }}", "{{ .Values.keysNamespace }}"
	content, err := withKinds(content)
	if err != nil {
		return "", err
	}
	converted := strings.NewReplacer(
		"namespace: lethe-system\n", "namespace: "+release+"\n",
		"namespace: lethe-keys\n", "namespace: "+keys+"\n",
		"system:serviceaccount:lethe-system:", "system:serviceaccount:"+release+":",
		"== 'lethe-system'", "== '"+release+"'",
		"namespace: kube-system\n", "namespace: {{ .Values.dns.namespace }}\n",
		`expression: "[]" # pods.annotations`, "expression: {{ toJson .Values.pods.annotations | quote }}",
		`expression: "[]" # pods.botAnnotations`, "expression: {{ toJson .Values.pods.botAnnotations | quote }}",
		"resourceNames: [lethe-system, lethe-keys]", "resourceNames: [\""+release+"\", \""+keys+"\"]",
	).Replace(content)
	for _, line := range strings.Split(converted, "\n") {
		// The one name that is not a namespace is that of a PriorityClass.
		if strings.TrimSpace(line) != "name: lethe-system" && namespaces.MatchString(line) {
			return "", fmt.Errorf("a namespace stands where it is not replaced: %q", line)
		}
	}
	return converted, nil
}
