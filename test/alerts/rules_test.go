package alerts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var root = filepath.Join("..", "..")

// rule of config/monitoring/prometheusrule.yaml.
type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

type groups struct {
	Groups []group `json:"groups"`
}

func readRules(t *testing.T) groups {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "config", "monitoring", "prometheusrule.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Metadata   map[string]any `json:"metadata"`
		Spec       groups         `json:"spec"`
	}
	if err := yaml.UnmarshalStrict(content, &object); err != nil {
		t.Fatal(err)
	}
	return object.Spec
}

func (g groups) all() map[string]rule {
	all := map[string]rule{}
	for _, group := range g.Groups {
		for _, r := range group.Rules {
			all[r.Alert] = r
		}
	}
	return all
}

// binary of Prometheus' own, out of Debian's package.
func binary(t *testing.T, name string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(root, "hack", "prometheus.sh"))
	command.Stderr = os.Stderr
	folder, err := command.Output()
	if err != nil {
		t.Fatalf("hack/prometheus.sh: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(folder)), name)
}

func writeYAML(t *testing.T, folder, name string, content any) string {
	t.Helper()
	text, err := yaml.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func promtool(t *testing.T, arguments ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), binary(t, "promtool"), arguments...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
}

// TestRulesAreWhole: promtool takes them, and each says how bad it is, what it is, and where one reads on.
func TestRulesAreWhole(t *testing.T) {
	rules := readRules(t)
	promtool(t, "check", "rules", writeYAML(t, t.TempDir(), "rules.yaml", rules))
	label := regexp.MustCompile(`\$labels\.(\w+)`)
	for name, r := range rules.all() {
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) || len(r.Labels) != 1 {
			t.Errorf("%s: labels %v", name, r.Labels)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.For == "" {
			t.Errorf("%s: no summary, no description or no duration", name)
		}
		if want := "https://github.com/lethe-dev/lethe/blob/main/docs/runbooks/" + name + ".md"; r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %s, want %s", name, r.Annotations["runbook_url"], want)
		}
		for _, annotation := range r.Annotations {
			for _, match := range label.FindAllStringSubmatch(annotation, -1) {
				if !regexp.MustCompile(`by \([^)]*\b` + match[1] + `\b[^)]*\)`).MatchString(r.Expr) {
					t.Errorf("%s: the annotation names the label %s, which the expression does not keep", name, match[1])
				}
			}
		}
	}
}

// unit of an alert on made-up series, a value a minute (or ten, where it takes a day): which labels it fires with,
// and series with which it is silent.
type unit struct {
	fires  []string // of name{labels} values
	at     string   // when it fires
	labels string   // with which
	silent []string // until then
}

// Series of other objects that are fine stand beside each.
func units() map[string]unit {
	const ago = " -7200+0x200" // Prometheus' tests begin at 0: a time before
	store := `{namespace="acme", store="chat", instance="a"} `
	ofRule := `{namespace="acme", store="chat", policy="privacy", rule="chats", instance="a"} `
	condition := func(kind, namespace, name, condition, status string) string {
		return fmt.Sprintf(`lethe_status_condition{kind=%q, namespace=%q, name=%q, condition=%q, status=%q, instance="a"} `, kind, namespace, name, condition, status)
	}
	return map[string]unit{
		"LetheStoreOverdue": {[]string{"lethe_store_overdue_rows" + ofRule + "3x60"}, "30m", `namespace="acme", store="chat", policy="privacy", rule="chats"`,
			[]string{"lethe_store_overdue_rows" + ofRule + "0x20 7x8 0x40"}},
		"LetheStoreNeverMeasured": {[]string{"lethe_store_measured" + store + "0x200"}, "130m", `namespace="acme", store="chat"`,
			[]string{"lethe_store_measured" + store + "0x100 1x100"}},
		"LetheStoreNotMeasured": {[]string{"lethe_store_measured_timestamp_seconds" + store + "60x200"}, "130m", `namespace="acme", store="chat"`,
			[]string{"lethe_store_measured_timestamp_seconds" + store + "60x60 3600x60 7200x80", `lethe_store_measured_timestamp_seconds{namespace="acme", store="new"} 0x200`}},
		"LetheStoreNotVerified": {[]string{condition("DataStore", "acme", "chat", "Compliant", "unknown") + "1x200",
			"lethe_store_measured_timestamp_seconds" + store + "60+60x200"}, "150m", `namespace="acme", store="chat"`,
			[]string{condition("DataStore", "acme", "chat", "Compliant", "unknown") + "1x200", "lethe_store_measured_timestamp_seconds" + store + "0x200",
				condition("DataStore", "acme", "other", "Compliant", "unknown") + "0x200", `lethe_store_measured_timestamp_seconds{namespace="acme", store="other"} 60+60x200`,
				condition("DataRetentionPolicy", "", "p", "Compliant", "unknown") + "1x200"}},
		"LethePolicyNotVerified": {[]string{condition("DataRetentionPolicy", "", "p", "Compliant", "unknown") + "1x200"}, "150m", `name="p"`,
			[]string{condition("DataRetentionPolicy", "", "p", "Compliant", "unknown") + "1x100 0x100", condition("DataRetentionPolicy", "", "p", "Compliant", "false") + "1x200",
				condition("DataStore", "acme", "chat", "Compliant", "unknown") + "1x200"}},
		"LetheStoreApprovalPending": {[]string{"lethe_store_approval_pending" + store + "1x150"}, "25h", `namespace="acme", store="chat"`,
			[]string{"lethe_store_approval_pending" + store + "1x140 0x10"}},
		"LetheStoreBrakeTripped": {[]string{"lethe_store_braked_datasets" + store + "2x20"}, "10m", `namespace="acme", store="chat"`,
			[]string{"lethe_store_braked_datasets" + store + "0x20"}},
		"LetheStoreReportRefused": {[]string{"lethe_store_report_refused" + store + "0x5 1x2 0x100"}, "30m", `namespace="acme", store="chat"`,
			[]string{"lethe_store_report_refused" + store + "0x100"}},
		"LetheStoreUnmappable": {[]string{"lethe_store_uncovered_tables" + store + "0x100", "lethe_store_unknown_age_rows" + ofRule + "0x100",
			"lethe_store_unknown_tenant_late_rows" + ofRule + "4x100"}, "70m", `namespace="acme", store="chat"`,
			[]string{"lethe_store_uncovered_tables" + store + "0x100", "lethe_store_unknown_age_rows" + ofRule + "0x100",
				"lethe_store_unknown_tenant_late_rows" + ofRule + "0x100"}},
		"LetheBotStalled": {[]string{condition("BotDeployment", "acme", "support", "Stalled", "true") + "1x60"}, "20m", `namespace="acme", name="support"`,
			[]string{condition("BotDeployment", "acme", "support", "Stalled", "true") + "0x60", condition("BotDeployment", "acme", "support", "Ready", "true") + "1x60"}},
		"LetheRolloutStopped": {[]string{`lethe_rollout_stopped{instance="a"} 1x20`}, "10m", ``, []string{`lethe_rollout_stopped{instance="a"} 1x3 0x20`, `lethe_rollout_stopped_tenants{instance="a"} 2x3 0x20`}},
		// Also of a store that waits for an approval besides.
		"LetheObjectStalled": {[]string{condition("DataStore", "acme", "chat", "Stalled", "true") + "1x60", "lethe_store_approval_pending" + store + "1x60"}, "20m", `kind="DataStore", namespace="acme", name="chat"`,
			[]string{condition("Tenant", "", "acme", "Stalled", "true") + "0x60", condition("BotDeployment", "acme", "support", "Stalled", "true") + "1x60"}},
		"LetheChangesPaused": {[]string{condition("Tenant", "", "acme", "ChangesPaused", "true") + "1x3 0 1x3 0 1x3 0 1x10"}, "15m", `name="acme"`,
			[]string{condition("Tenant", "", "acme", "ChangesPaused", "true") + "1x3 0x30"}},
		"LetheManagerAbsent": {[]string{`lethe_manager_leader{instance="a"} 1x5 0x20`, `lethe_manager_leader{instance="b"} 0x5 0x20`}, "12m", ``,
			[]string{`lethe_manager_leader{instance="a"} 1x5 0x20`, `lethe_manager_leader{instance="b"} 0x5 1x20`}},
		"LetheDNSUnanswered": {[]string{`lethe_dns_answers{instance="a"} 1x3 0x40`}, "20m", ``, []string{`lethe_dns_answers{instance="a"} 0x5 1x30`}},
		"LetheQueueSlow": {[]string{`lethe_queue_longest_wait_seconds{controller="tenant"} 31x30`}, "15m", `controller="tenant"`,
			[]string{`lethe_queue_longest_wait_seconds{controller="tenant"} 29x30`}},
		"LetheOrphansLeft": {[]string{"lethe_orphans_left 1x30"}, "15m", ``, []string{"lethe_orphans_left 0x30"}},
		"LetheOrphansRemoved": {[]string{`lethe_orphans_removed_total{kind="StatefulSet"} 0x5 1x10`}, "10m", `kind="StatefulSet"`,
			[]string{`lethe_orphans_removed_total{kind="StatefulSet"} 1x30`}},
		"LetheKeyserverAbsent": {[]string{`lethe_keyserver_kek_usable{instance="a"} 1x3 stale`}, "10m", ``, []string{`lethe_keyserver_kek_usable{instance="a"} 0x20`}},
		"LetheKEKUnusable": {[]string{`lethe_keyserver_kek_usable{instance="a"} 1x10`, `lethe_keyserver_kek_usable{instance="b"} 0x10`}, "5m", ``,
			[]string{`lethe_keyserver_kek_usable{instance="a"} 1x10`, `lethe_keyserver_kek_usable{instance="b"} 1x10`}},
		"LetheCertificateExpiring": {[]string{`lethe_keyserver_certificate_expiry_timestamp_seconds{certificate="ca"} 2592000x20`,
			`lethe_keyserver_certificate_expiry_timestamp_seconds{certificate="leaf"} 86400x20`}, "10m", `certificate="ca"`,
			[]string{`lethe_keyserver_certificate_expiry_timestamp_seconds{certificate="ca"} 10368000x20`,
				`lethe_keyserver_certificate_expiry_timestamp_seconds{certificate="leaf"} 43200x20`}},
		"LetheKeysDiffer":             {[]string{"lethe_keyserver_differing_tenants 1x20"}, "10m", ``, []string{"lethe_keyserver_differing_tenants 0x20"}},
		"LetheKeysPendingDestruction": {[]string{"lethe_keyserver_pending_destructions 1x20"}, "10m", ``, []string{"lethe_keyserver_pending_destructions 0x20"}},
		"LetheKeysOrphaned": {[]string{`lethe_keyserver_orphans_removed_total{kind="Tenant"} 0x5 1x10`}, "10m", `kind="Tenant"`,
			[]string{`lethe_keyserver_orphans_removed_total{kind="Tenant"} 1x30`}},
		"LetheRotationStuck": {[]string{`lethe_keyserver_keys_on_old{layer="data"} 3x200`}, "150m", `layer="data"`,
			[]string{`lethe_keyserver_keys_on_old{layer="sealing"} 3x200`, `lethe_keyserver_keys_on_old{layer="kek"} 3x100 0x100`}},
		"LetheKeysNotLookedAt": {[]string{`lethe_keyserver_rotation_pass_timestamp_seconds{instance="a"}` + ago}, "80m", ``,
			[]string{`lethe_keyserver_rotation_pass_timestamp_seconds{instance="a"}` + ago, `lethe_keyserver_rotation_pass_timestamp_seconds{instance="b"} 0+60x200`}},
		"LetheKeyserverCrowded": {[]string{`lethe_keyserver_connections_refused_total{door="calls", reason="Source"} 0+120x30`}, "15m", `door="calls", reason="Source"`,
			[]string{`lethe_keyserver_connections_refused_total{door="calls", reason="Source"} 0+30x30`}},
	}
}

// TestRulesOnMadeUpSeries runs promtool's unit tests: each alert fires with the labels that say of whom, and is
// silent beside what only looks like it.
func TestRulesOnMadeUpSeries(t *testing.T) {
	rules := readRules(t)
	folder := t.TempDir()
	path := writeYAML(t, folder, "rules.yaml", rules)
	type sample struct {
		Labels string  `json:"labels"`
		Value  float64 `json:"value"`
	}
	type query struct {
		Expr string   `json:"expr"`
		At   string   `json:"eval_time"`
		Want []sample `json:"exp_samples"`
	}
	type input struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	type test struct {
		Name     string  `json:"name"`
		Interval string  `json:"interval"`
		Input    []input `json:"input_series"`
		Queries  []query `json:"promql_expr_test"`
	}
	tests := map[string][]test{} // by interval
	seriesOf := func(lines []string) (out []input) {
		for _, line := range lines {
			cut := strings.LastIndex(line, "}")
			if cut < 0 {
				cut = strings.Index(line, " ") - 1
			}
			out = append(out, input{strings.TrimSpace(line[:cut+1]), strings.TrimSpace(line[cut+1:])})
		}
		return out
	}
	known := units()
	for name, r := range rules.all() {
		u, ok := known[name]
		if !ok {
			t.Errorf("%s has no unit test", name)
			continue
		}
		delete(known, name)
		labels := fmt.Sprintf(`ALERTS{alertname=%q, alertstate="firing", severity=%q`, name, r.Labels["severity"])
		if u.labels != "" {
			labels += ", " + u.labels
		}
		firing := fmt.Sprintf(`ALERTS{alertname=%q, alertstate="firing"}`, name)
		interval := "1m"
		if strings.HasSuffix(u.at, "h") {
			interval = "10m"
		}
		tests[interval] = append(tests[interval],
			test{name + " fires", interval, seriesOf(u.fires), []query{{firing, u.at, []sample{{labels + "}", 1}}}}},
			test{name + " is silent", interval, seriesOf(u.silent), []query{{firing, u.at, nil}}})
	}
	for name := range known {
		t.Errorf("there is no alert %s", name)
	}
	for interval, tests := range tests {
		promtool(t, "test", "rules", writeYAML(t, folder, "tests-"+interval+".yaml", map[string]any{
			"rule_files": []string{path}, "evaluation_interval": interval, "tests": tests}))
	}
}

// TestScrapeConfig: what docs/metrics.md says for a Prometheus without the operator is what it takes.
func TestScrapeConfig(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "<!-- scrape-config -->\n```yaml\n")
	config, _, ended := strings.Cut(rest, "```")
	if !found || !ended {
		t.Fatal("docs/metrics.md has no scrape_configs")
	}
	// Debian's Prometheus is built without the discovery of pods: the rest is checked.
	discovery := regexp.MustCompile(`kubernetes_sd_configs: \[\{role: pod, namespaces: \{names: \[lethe-system\]\}\}\]`)
	if !discovery.MatchString(config) {
		t.Error("pods of lethe-system are not discovered")
	}
	path := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(path, discovery.ReplaceAll([]byte(config), []byte("static_configs: [{targets: [localhost]}]")), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "config", path)
	if !strings.Contains(config, "honor_labels: true") {
		t.Error("the namespace of a store would be called exported_namespace")
	}
}
