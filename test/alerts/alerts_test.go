package alerts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/pg"
)

// TestEachAlertFiresAndClears breaks one thing after the other, waits for its alert, and mends it.
func TestEachAlertFiresAndClears(t *testing.T) {
	w := newWorld(t)
	w.fires("LetheManagerAbsent")
	w.fires("LetheKeyserverAbsent")
	kek := newKEK(t)
	w.startKeyserver(kek)
	w.clears("LetheKeyserverAbsent")
	w.startManager()
	w.clears("LetheManagerAbsent")

	slow := w.tenant("slow", nil)
	for i := range 6 {
		name := fmt.Sprintf("bot-%d", i)
		token := w.seal(slow, sealing.Place{Namespace: "slow", Kind: sealing.KindBotDeployment, Name: name, Key: "token"}, "a token")
		w.bot("slow", name, func(b *v1alpha1.BotDeployment) {
			b.Spec.Credentials = []v1alpha1.Credential{{Name: "token", Sealed: token}}
		})
	}
	acme := w.tenant("acme", func(tenant *v1alpha1.Tenant) {
		tenant.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: "1"}}
	})
	w.becomes(acme, "Ready=True")

	w.ofStores(acme)
	w.ofObjects(acme)
	w.ofRollouts()
	w.fires("LetheQueueSlow", "controller=botdeployment") // since the beginning
	close(w.hold)
	w.clears("LetheQueueSlow")

	w.nameless.Store(true)
	w.fires("LetheDNSUnanswered")
	w.nameless.Store(false)
	w.clears("LetheDNSUnanswered")

	w.namesAreConventional(w.managerMetrics, w.keyserverMetrics)
	w.stopManager()
	w.fires("LetheManagerAbsent")
	w.startManager()
	w.clears("LetheManagerAbsent")

	w.ofKeys(acme, kek)
	w.runbooksWereRun()
	if err := w.complete(); err != nil {
		t.Errorf("not every alert was tried:\n%v", err)
	}
}

// table has 1000 rows of this week, and as many that are older than 100 days as somebody inserts.
const table = `CREATE TABLE messages (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_at timestamptz NOT NULL, text text);
CREATE INDEX ON messages (created_at);
INSERT INTO messages (created_at, text) SELECT now() - interval '1 day', 'new' FROM generate_series(1, 1000);
CREATE TABLE notes (id bigint PRIMARY KEY)`

func (w *world) insertOld(db pg.Admin, rows int) {
	db.Run(fmt.Sprintf("INSERT INTO messages (created_at, text) SELECT now() - interval '100 days', 'old' FROM generate_series(1, %d)", rows))
}

// ofStores is a store's life: never measured, late, not understood, waiting, swept, braked, and without a promise.
func (w *world) ofStores(acme *v1alpha1.Tenant) {
	w.t.Helper()
	name := database.Database(w.t, table)
	db := database.Admin(w.t, name)
	w.insertOld(db, 3000)
	role := "sweeper_" + name
	days := int32(90)
	policy := &v1alpha1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "privacy"}, Spec: v1alpha1.DataRetentionPolicySpec{Mode: v1alpha1.PolicyAudit,
		StoreSelector: metav1.LabelSelector{MatchLabels: map[string]string{"promise": "privacy"}},
		Rules:         []v1alpha1.RetentionRule{{Name: "chats", DataClass: "Conversations", RetainFor: &v1alpha1.Period{Days: &days}}}}}
	w.must(w.admin.Create(w.t.Context(), policy))
	store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "chat", Labels: map[string]string{"promise": "privacy"}}, Spec: v1alpha1.DataStoreSpec{
		Type: v1alpha1.StorePostgres, Tenancy: v1alpha1.TenancyDedicated,
		Postgres: &v1alpha1.PostgresStore{Host: "db.example", Port: 5432, Database: name, Username: role},
		Datasets: []v1alpha1.Dataset{{Name: "messages", DataClass: "Conversations", Table: v1alpha1.Table{Schema: "public", Name: "messages", Key: []v1alpha1.Identifier{"id"},
			AgeColumn: v1alpha1.AgeColumn{Name: "created_at", Type: v1alpha1.AgeTimestamptz}}}}}}
	store.Spec.Postgres.Password = w.seal(acme, sealing.Place{Namespace: "acme", Kind: sealing.KindDataStore, Name: "chat", Key: sealing.PasswordKey,
		Destination: sealing.DestinationOf(&store.Spec)}, password)
	db.Run(postgres.Grants(store.Spec))
	db.Run(fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", role, password))
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := database.Exec(ctx, name, "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			w.t.Errorf("drop the role: %v", err)
		}
	})
	w.must(w.admin.Create(w.t.Context(), store))
	of := []string{"namespace=acme", "store=chat"}
	w.fires("LetheStoreNeverMeasured", of...)

	w.sweep(store, time.Now().Add(-3*time.Hour))
	w.clears("LetheStoreNeverMeasured", of...)
	w.fires("LetheStoreNotMeasured", of...)
	w.fires("LetheStoreOverdue", append(of, "policy=privacy", "rule=chats")...)
	w.fires("LetheStoreUnmappable", of...)
	w.sweep(store, time.Now())
	w.clears("LetheStoreNotMeasured", of...)

	amend(w, w.admin, store, func(s *v1alpha1.DataStore) {
		s.Spec.Exempt = []v1alpha1.Exemption{{Schema: "public", Table: "notes", Reason: "Nothing about people"}}
	})
	w.sweep(store, time.Now())
	w.clears("LetheStoreUnmappable", of...)

	amend(w, w.admin, policy, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Mode = v1alpha1.PolicyEnforce })
	w.fires("LetheStoreApprovalPending", of...)
	w.sweep(store, time.Now())
	w.mend("LetheStoreApprovalPending")
	w.clears("LetheStoreApprovalPending", of...)
	w.sweep(store, time.Now())
	w.clears("LetheStoreOverdue", of...)
	if left := db.Count("SELECT count(*) FROM messages WHERE text = 'old'"); left != 0 {
		w.t.Fatalf("the sweep left %d rows", left)
	}

	// Rows that were gone are there again.
	w.insertOld(db, 3000)
	w.sweep(store, time.Now())
	w.braked(store, v1alpha1.ReasonReturned)
	w.fires("LetheStoreBrakeTripped", of...)
	db.Run("DELETE FROM messages WHERE text = 'old'")
	w.sweep(store, time.Now())
	w.clears("LetheStoreBrakeTripped", of...)

	// Rows that have got old since the last sweep: more than the approved backlog and a fifth of the table together.
	db.Run("INSERT INTO messages (created_at, text) SELECT now() - interval '90 days' + interval '2 seconds', 'old' FROM generate_series(1, 20000)")
	w.until("they are past their window", func() error {
		if n := db.Count("SELECT count(*) FROM messages WHERE created_at < now() - interval '90 days 1 second'"); n < 20000 {
			return fmt.Errorf("%d rows are", n)
		}
		return nil
	})
	db.Run("ANALYZE messages")
	w.sweep(store, time.Now())
	w.braked(store, v1alpha1.ReasonBrakeTripped)
	w.fires("LetheStoreBrakeTripped", of...)
	w.mend("LetheStoreBrakeTripped")
	w.sweep(store, time.Now())
	w.clears("LetheStoreBrakeTripped", of...)
	if left := db.Count("SELECT count(*) FROM messages WHERE text = 'old'"); left != 0 {
		w.t.Fatalf("the sweep left %d rows that were let go", left)
	}

	// An earlier report is put where the last one lies, and the next sweep is read.
	w.replay = true
	w.sweep(store, time.Now())
	w.fires("LetheStoreReportRefused", of...)
	w.replay = false
	w.sweep(store, time.Now())
	w.clears("LetheStoreReportRefused", of...)

	w.must(w.admin.Delete(w.t.Context(), policy))
	w.fires("LetheStoreNotVerified", of...)
	policy.ResourceVersion, policy.UID = "", ""
	w.must(w.admin.Create(w.t.Context(), policy)) // the plan is the one that was measured
	w.clears("LetheStoreNotVerified", of...)

	// A rule of whose class no dataset is, since it is misspelt, beside one that is kept.
	right := slices.Clone(policy.Spec.Rules)
	amend(w, w.admin, policy, func(p *v1alpha1.DataRetentionPolicy) {
		p.Spec.Rules = append(p.Spec.Rules, v1alpha1.RetentionRule{Name: "mails", DataClass: "Mials", RetainFor: &v1alpha1.Period{Days: &days}})
	})
	w.fires("LethePolicyNotVerified", "name=privacy")
	amend(w, w.admin, policy, func(p *v1alpha1.DataRetentionPolicy) { p.Spec.Rules = right })
	w.clears("LethePolicyNotVerified", "name=privacy")
}

// braked says that the last sweep of a store of one dataset was, and why.
func (w *world) braked(store *v1alpha1.DataStore, why string) {
	w.t.Helper()
	w.must(w.get(store))
	if d := store.Status.Datasets; len(d) != 1 || d[0].Reason != why {
		w.t.Fatalf("the datasets are %+v, want the reason %s", d, why)
	}
}

// ofObjects are bots and Tenants that cannot go on, changes without end, and what has lost its owner.
func (w *world) ofObjects(acme *v1alpha1.Tenant) {
	w.t.Helper()
	elsewhere := w.seal(acme, sealing.Place{Namespace: "acme", Kind: sealing.KindBotDeployment, Name: "another", Key: "token"}, "a token")
	bot := w.bot("acme", "support", func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials = []v1alpha1.Credential{{Name: "token", Sealed: elsewhere}}
	})
	w.fires("LetheBotStalled", "namespace=acme", "name=support")
	right := w.seal(acme, sealing.Place{Namespace: "acme", Kind: sealing.KindBotDeployment, Name: "support", Key: "token"}, "a token")
	amend(w, w.admin, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = right })
	w.clears("LetheBotStalled", "namespace=acme")

	thief := w.tenant("thief", func(tenant *v1alpha1.Tenant) { tenant.Spec.Namespaces[0].Name = "acme" })
	w.fires("LetheObjectStalled", "kind=Tenant", "name=thief")
	amend(w, w.admin, thief, func(tenant *v1alpha1.Tenant) { tenant.Spec.Namespaces[0].Name = "thief" })
	w.clears("LetheObjectStalled", "name=thief")

	refused := false
	for i := 0; !refused && i < 1000; i++ {
		w.must(w.get(bot))
		bot.Annotations = map[string]string{"example.com/noise": strings.Repeat("x", 8000) + fmt.Sprint(i)}
		refused = apierrors.IsForbidden(w.admin.Update(w.t.Context(), bot))
	}
	w.fires("LetheChangesPaused", "name=acme")
	w.mend("LetheChangesPaused")
	w.clears("LetheChangesPaused")

	lost := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "lost", UID: "0e0e0e0e-0000-4000-8000-000000000000"}}
	child := resources.SweeperServiceAccount(lost)
	child.OwnerReferences = nil
	keeper := w.forbid(admissionv1.Delete, "serviceaccounts", "acme", "true")
	w.must(w.cluster.Create(w.t.Context(), child))
	w.fires("LetheOrphansLeft")
	w.must(w.admin.Delete(w.t.Context(), keeper))
	w.fires("LetheOrphansRemoved", "kind=ServiceAccount")
	w.clears("LetheOrphansLeft")
	w.clears("LetheOrphansRemoved")
}

// ofRollouts: a change of their Tenant restarts three bots, and none of them becomes ready again.
func (w *world) ofRollouts() {
	w.t.Helper()
	fleet := w.tenant("fleet", nil)
	w.becomes(fleet, "Ready=True")
	var bots []*v1alpha1.BotDeployment
	for i := range 3 {
		bots = append(bots, w.bot("fleet", fmt.Sprintf("bot-%d", i), func(b *v1alpha1.BotDeployment) { b.Spec.Rollout.ProgressDeadlineSeconds = 10 }))
	}
	for _, bot := range bots {
		w.becomes(bot, "Ready=True")
	}
	w.failing.Store(true)
	amend(w, w.admin, fleet, func(tenant *v1alpha1.Tenant) {
		tenant.Spec.Placement = &v1alpha1.TenantPlacement{NodeSelector: map[string]string{"example.com/pool": "none"}}
	})
	w.fires("LetheRolloutStopped")
	w.failing.Store(false)
	w.clears("LetheRolloutStopped")
	for _, bot := range bots {
		w.becomes(bot, "Ready=True")
	}
}

// forbid is a policy of somebody else that refuses an operation where an expression is true, until what is returned
// is deleted.
func (w *world) forbid(operation admissionv1.OperationType, resource, namespace, where string) client.Object {
	w.t.Helper()
	name := "forbid-" + resource
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{operation}, Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{resource}}}}}},
		MatchConditions: []admissionv1.MatchCondition{{Name: "where", Expression: where}},
		Validations:     []admissionv1.Validation{{Expression: "false", Message: "it stays as it is"}}}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		MatchResources: &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": namespace}}}}}
	w.must(w.admin.Create(w.t.Context(), policy))
	w.must(w.admin.Create(w.t.Context(), binding))
	w.until("the policy holds", func() error {
		var err error
		if operation == admissionv1.Delete {
			probe := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "probe"}}
			if err := w.cluster.Create(w.t.Context(), probe); client.IgnoreAlreadyExists(err) != nil {
				return err
			}
			err = w.cluster.Delete(w.t.Context(), probe, client.DryRunAll)
		} else {
			var secrets corev1.SecretList
			if err := w.admin.List(w.t.Context(), &secrets, client.InNamespace(namespace)); err != nil {
				return err
			}
			i := slices.IndexFunc(secrets.Items, func(s corev1.Secret) bool { return strings.HasPrefix(s.Name, "tenant-") })
			if i < 0 {
				return errors.New("there is no document of a Tenant")
			}
			err = w.admin.Update(w.t.Context(), &secrets.Items[i], client.DryRunAll)
		}
		if err == nil || !strings.Contains(err.Error(), "it stays as it is") {
			return fmt.Errorf("not yet: %w", err)
		}
		return nil
	})
	return binding
}

// ofKeys breaks the keyserver, its keys and its door.
func (w *world) ofKeys(acme *v1alpha1.Tenant, kek sealing.Key) {
	w.t.Helper()
	w.stopKeyserver()
	w.fires("LetheKeyserverAbsent")
	w.startKeyserver(newKEK(w.t))
	w.fires("LetheKEKUnusable")
	w.clears("LetheKeyserverAbsent")

	// One whose clock was 20 hours behind has made its certificate then, and has looked over its keys then.
	w.clock.by.Store(int64(-20 * time.Hour))
	w.startKeyserver(kek)
	w.clears("LetheKEKUnusable")
	w.fires("LetheCertificateExpiring", "certificate=leaf")
	w.fires("LetheKeysNotLookedAt")
	w.clock.by.Store(0)
	w.clears("LetheCertificateExpiring")
	w.clears("LetheKeysNotLookedAt")

	fresh := newKEK(w.t)
	w.startKeyserver(fresh, kek)
	keeper := w.forbid(admissionv1.Update, "secrets", env.KeysNamespace, "object.metadata.name.startsWith('tenant-')")
	request := keystore.NewRotation(env.KeysNamespace)
	w.must(keystore.AskRotation(request, keystore.LayerKEK, "", w.clock.Now()))
	w.must(w.admin.Create(w.t.Context(), request))
	w.fires("LetheRotationStuck", "layer=kek")
	w.must(w.admin.Delete(w.t.Context(), keeper))
	w.forward(11*time.Minute, func() bool { return w.isClear("LetheRotationStuck") })
	w.clears("LetheRotationStuck")

	// Somebody took a bot's finalizer off by hand while no manager ran.
	w.becomes(&v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "support"}}, "CredentialsReady=True")
	w.stopManager()
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "support"}}
	amend(w, w.cluster, bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = nil })
	w.must(w.cluster.Delete(w.t.Context(), bot))
	w.forward(6*time.Minute, func() bool { return w.isFiring("LetheKeysOrphaned") })
	w.fires("LetheKeysOrphaned", "kind=BotDeployment")
	w.clears("LetheKeysOrphaned")
	w.startManager()

	keys := testEnv.AsServiceAccount(w.t, env.SystemNamespace, resources.ServiceAccountKeyserver)
	w.must(w.get(acme))
	before, right := acme.DeepCopy(), acme.Status.KeysGeneration
	acme.Status.KeysGeneration += 100
	w.must(keys.Status().Patch(w.t.Context(), acme, client.MergeFrom(before)))
	w.forward(6*time.Minute, func() bool { return w.isFiring("LetheKeysDiffer") })
	w.fires("LetheKeysDiffer")
	w.must(w.get(acme))
	before = acme.DeepCopy()
	acme.Status.KeysGeneration = right
	w.must(keys.Status().Patch(w.t.Context(), acme, client.MergeFrom(before)))
	w.forward(6*time.Minute, func() bool { return w.isClear("LetheKeysDiffer") })
	w.clears("LetheKeysDiffer")

	thief := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "thief"}}
	w.becomes(thief, "Ready=True")
	w.must(w.admin.Delete(w.t.Context(), thief))
	w.forward(6*time.Minute, func() bool { return w.isFiring("LetheKeysPendingDestruction") })
	w.fires("LetheKeysPendingDestruction")
	w.mend("LetheKeysPendingDestruction")
	w.forward(6*time.Minute, func() bool { return w.isClear("LetheKeysPendingDestruction") })
	w.clears("LetheKeysPendingDestruction")

	stop := w.crowd()
	w.fires("LetheKeyserverCrowded", "door=calls")
	stop()
	w.clears("LetheKeyserverCrowded")
}

// namesAreConventional has promtool look at Lethe's own metrics, as they are scraped.
func (w *world) namesAreConventional(addresses ...string) {
	w.t.Helper()
	for _, address := range addresses {
		all, err := fetch("http://" + address)
		w.must(err)
		ours := regexp.MustCompile(`(?m)^(# (HELP|TYPE) )?lethe_.*\n`).FindAllString(string(all), -1)
		if len(ours) < 30 {
			w.t.Errorf("%d lines only", len(ours))
		}
		check := exec.CommandContext(w.t.Context(), binary(w.t, "promtool"), "check", "metrics")
		check.Stdin = strings.NewReader(strings.Join(ours, ""))
		if out, err := check.CombinedOutput(); err != nil {
			w.t.Errorf("%v\n%s", err, out)
		}
	}
}

// crowd holds more connections to the keyserver than it lets one address have, and goes on trying.
func (w *world) crowd() (stop func()) {
	ended, quit := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var held []net.Conn
		defer func() {
			for _, c := range held {
				_ = c.Close()
			}
		}()
		for {
			select {
			case <-quit:
				return
			default:
			}
			if c, err := net.DialTimeout("tcp", w.calls, time.Second); err == nil {
				held = append(held, c)
			}
			if len(held) > 400 {
				for _, c := range held[:200] {
					_ = c.Close()
				}
				held = held[200:]
			}
		}
	}()
	return func() { close(quit); <-ended }
}

// forward puts the keyserver's clock on by steps until something is so: it looks at all keys every few minutes.
func (w *world) forward(by time.Duration, until func() bool) {
	w.t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range 30 {
		if until() {
			return
		}
		w.clock.by.Add(int64(by))
		<-tick.C
	}
}

func (w *world) isFiring(name string) bool {
	alerts, err := w.firing(name, nil)
	return err == nil && len(alerts) > 0
}

func (w *world) isClear(name string) bool {
	alerts, err := w.firing(name, nil)
	return err == nil && len(alerts) == 0
}
