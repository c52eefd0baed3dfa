package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/test/hostile"
)

// hostileCluster answers with objects whose every free text is planted, as a cluster that is not ours may hold them.
func hostileCluster(t *testing.T) *caller {
	t.Helper()
	words := hostile.Words()
	meta := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "u", Generation: 1, Labels: map[string]string{v1alpha1.LabelTenant: "acme"}}
	}
	days := int32(30)
	at := metav1.NewTime(day0.Add(-time.Minute))
	store := v1alpha1.DataStore{TypeMeta: metav1.TypeMeta{Kind: "DataStore", APIVersion: "lethe.dev/v1alpha1"}, ObjectMeta: meta("acme-a", "chat")}
	store.Labels["retention"] = "published"
	store.Spec = v1alpha1.DataStoreSpec{Type: v1alpha1.StorePostgres, Tenancy: v1alpha1.TenancyDedicated, Postgres: &v1alpha1.PostgresStore{Host: words, Port: 5432, Database: words, Username: words},
		Datasets: []v1alpha1.Dataset{{Name: "messages", DataClass: "Conversations", Table: v1alpha1.Table{Schema: "public", Name: v1alpha1.Identifier(words), Key: []v1alpha1.Identifier{"id"},
			AgeColumn: v1alpha1.AgeColumn{Name: v1alpha1.Identifier(words), Type: "Timestamptz"}},
			Floor: &v1alpha1.Floor{RetainFor: &v1alpha1.Period{Days: &days}, LegalBasis: words}}},
		Exempt: []v1alpha1.Exemption{{Schema: "public", Table: "x", Reason: words}}}
	store.Status = v1alpha1.DataStoreStatus{MeasuredAt: &at, Plan: v1alpha1.PlanStatus{Hash: "h", Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: words}},
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionCompliant, Status: metav1.ConditionFalse, Reason: words, Message: words, ObservedGeneration: 1}},
		Datasets: []v1alpha1.DatasetMeasurement{{Name: "messages", Problem: v1alpha1.Problem{Reason: "LineGuarded", Message: words}, Notice: words,
			Rules: []v1alpha1.RuleMeasurement{{Policy: "p", Rule: "conversations", Window: "P90D"}}}}}
	policy := v1alpha1.DataRetentionPolicy{TypeMeta: metav1.TypeMeta{Kind: "DataRetentionPolicy", APIVersion: "lethe.dev/v1alpha1"}, ObjectMeta: meta("", "p")}
	policy.Spec = v1alpha1.DataRetentionPolicySpec{StoreSelector: metav1.LabelSelector{MatchLabels: map[string]string{"retention": "published"}}, Mode: v1alpha1.PolicyAudit,
		Rules: []v1alpha1.RetentionRule{{Name: "conversations", DataClass: "Conversations", RetainFor: &v1alpha1.Period{Days: &days}}}}
	tenant := v1alpha1.Tenant{TypeMeta: metav1.TypeMeta{Kind: "Tenant", APIVersion: "lethe.dev/v1alpha1"}, ObjectMeta: meta("", "acme")}
	tenant.Spec.Namespaces = []v1alpha1.TenantNamespace{{Name: "acme-a"}}
	tenant.Status = v1alpha1.TenantStatus{Namespaces: []v1alpha1.TenantNamespaceStatus{{Name: "acme-a", UID: "u"}}, SealingKeys: []v1alpha1.SealingKey{{KID: words, State: "Active"}},
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionKeysReady, Status: metav1.ConditionFalse, Reason: "KeyMissing", Message: words}}}
	status, err := json.Marshal(keystore.RotationStatus{Problems: []string{words}, Refused: map[string]string{words: words}, Left: map[keystore.Layer]int{}})
	if err != nil {
		t.Fatal(err)
	}
	rotation := corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, ObjectMeta: meta("lethe-keys", "lethe-key-rotation-status"),
		Data: map[string]string{"status.json": string(status)}}
	secret := corev1.Secret{ObjectMeta: meta("lethe-keys", "pending-"+words), Data: map[string][]byte{"keys.json": []byte(words)}, Type: "lethe.dev/wrapped-key"}
	list := func(kind string, items ...any) map[string]any {
		version := "lethe.dev/v1alpha1"
		if kind == "Secret" {
			version = "v1"
		}
		return map[string]any{"kind": kind + "List", "apiVersion": version, "metadata": map[string]any{}, "items": append([]any{}, items...)}
	}
	lethe, namespace := "GET /apis/lethe.dev/v1alpha1", corev1.Namespace{TypeMeta: metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"}, ObjectMeta: meta("", "acme-a")}
	api := hostile.API(t, map[string]any{
		lethe + "/datastores": list("DataStore", store), lethe + "/namespaces/acme-a/datastores": list("DataStore", store), lethe + "/namespaces/acme-a/datastores/chat": store,
		lethe + "/dataretentionpolicies": list("DataRetentionPolicy", policy), lethe + "/tenants": list("Tenant", tenant), lethe + "/tenants/acme": tenant,
		"GET /api/v1/namespaces/acme-a": namespace, "GET /api/v1/namespaces/lethe-keys/configmaps/lethe-key-rotation-status": rotation,
		"GET /api/v1/namespaces/lethe-keys/configmaps/lethe-key-rotation": corev1.ConfigMap{TypeMeta: rotation.TypeMeta, ObjectMeta: meta("lethe-keys", "lethe-key-rotation")},
		"GET /api/v1/namespaces/lethe-keys/secrets":                       list("Secret", secret),
		lethe + "/namespaces/acme-a/botdeployments":                       list("BotDeployment"),
	})
	return &caller{t: t, kubeconfig: hostile.Kubeconfig(t, api.URL)}
}

// TestForeignTextInTheTerminal: whatever a cluster, a manifest or a server's refusal says, a terminal shows it as
// plain words in their own line and cell.
func TestForeignTextInTheTerminal(t *testing.T) {
	c := hostileCluster(t)
	for _, args := range [][]string{
		{"verify", "-A"}, {"explain", "acme-a/chat"}, {"plan", "acme-a/chat"}, {"approve", "acme-a/chat"}, {"keys", "status"}, {"keys", "status", "--tenant", "acme"},
		{"keys", "pending"}, {"keys", "public", "acme"}, {"keys", "public", "other"}, {"seal", "--bot", "acme-a/b", "--credential", "c"}, {"keys", "rotate", "data", "--tenant", "acme"}, {"verify", "-n", "forbidden"},
		{"keys", "backup", filepath.Join(t.TempDir(), "b")}, {"keys", "forget", "acme", "--now"}, {"verify", "acme-a/other"}, {"grants", "acme-a/other"},
	} {
		what := strings.Join(args[:min(3, len(args))], " ")
		o := c.run("value", args...)
		for stream, shown := range map[string]string{"output": o.out, "errors": o.errOut} {
			hostile.Check(t, what+": "+stream, shown)
		}
		hostile.Reached(t, what, o.out+o.errOut)
	}
	if o := c.run("", "verify", "-A"); strings.Count(o.out, "\n") != 2 {
		t.Errorf("a cell makes rows of its own:\n%s", o.out)
	}
}

// TestDataStaysAsItIs: what is for files and programs is not changed on its way there, and is fit for a terminal
// where it goes to one.
func TestDataStaysAsItIs(t *testing.T) {
	c := hostileCluster(t)
	var compiled struct{ Plan plan.Plan }
	o := c.ok("", "plan", "acme-a/chat", "-o", "json")
	if err := json.Unmarshal([]byte(o.out), &compiled); err != nil || compiled.Plan.Target.Postgres.Database != hostile.Words() {
		t.Errorf("%v: %q", err, o.out)
	}
	var out, errOut bytes.Buffer
	s := &shell{IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut}, config: genericclioptions.NewConfigFlags(true), now: c.time,
		terminal: func() bool { return false }, outTerminal: func() bool { return true }}
	if code := run(context.Background(), s, []string{"grants", "acme-a/chat", "--kubeconfig", c.kubeconfig}); code != 0 {
		t.Fatalf("%d: %s", code, &errOut)
	}
	if strings.ContainsAny(out.String(), "\x1b\u202e\u009b\x07\u2066") {
		t.Errorf("a terminal obeys %q", out.String())
	}
}

// TestOneFileWritesToTheStreams: a command that wrote by itself could forget to clean.
func TestOneFileWritesToTheStreams(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "show.go" || file == "main.go" {
			continue
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if name := n.Sel.Name; name == "Out" || name == "ErrOut" || name == "Stdout" || name == "Stderr" || name == "OutOrStdout" {
					t.Errorf("%s uses %s: show.go writes", fset.Position(n.Pos()), name)
				}
			case *ast.ImportSpec:
				if n.Path.Value == `"text/tabwriter"` {
					t.Errorf("%s makes tables by itself", file)
				}
			}
			return true
		})
	}
	if len(files) < 15 {
		t.Error(fmt.Sprint(files))
	}
}
