package fields

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/specs"
)

// TestWhatCannotStandTogether: two elements of a bot that are right by themselves and not together are refused, by
// name, and with what to do. Otherwise one would vanish, or the pod would never start.
func TestWhatCannotStandTogether(t *testing.T) {
	enforced(t)
	list := func(elements ...any) []any { return elements }
	object := func(pairs ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(string)] = pairs[i+1]
		}
		return m
	}
	helper := func(more ...any) []any { return list(object(append([]any{"name", "h", "image", "h"}, more...)...)) }
	for name, tc := range map[string]struct {
		set  map[string]any // fields of the spec
		says []string       // nil: it is taken
	}{
		"a file in the storage":    {object("files", list(object("path", "/data/x", "content", "x"))), []string{"spec.files[/data/x] is or lies in spec.storage.mountPath"}},
		"a file that is a scratch": {object("files", list(object("path", "/cache", "content", "x"))), []string{"spec.files[/cache] is or lies in spec.scratch[/cache]"}},
		"a scratch in a scratch":   {object("scratch", list(object("path", "/a"), object("path", "/a/b"))), []string{"spec.scratch[/a/b] is or lies in spec.scratch[/a]"}},
		"a scratch at the storage": {object("scratch", list(object("path", "/data"))), []string{"spec.scratch[/data] is or lies in spec.storage.mountPath"}},
		"a scratch above a file":   {object("scratch", list(object("path", "/etc/bot.more"))), []string{"spec.files[/etc/bot.more] is or lies in spec.scratch[/etc/bot.more]"}},
		"a file in /tmp":           {object("files", list(object("path", "/tmp/x", "content", "x"))), []string{"spec.files[/tmp/x] is or lies in /tmp, which every bot has"}},
		"a scratch below /tmp":     {object("scratch", list(object("path", "/tmp/x"))), []string{"/tmp, which every bot has"}},
		"neighbours":               {object("scratch", list(object("path", "/database"), object("path", "/tmp"), object("path", "/dev/shm")), "files", list(object("path", "/data2", "content", "x"))), nil},
		"the same path twice":      {object("files", list(object("path", "/a", "content", "x"), object("path", "/a", "content", "y"))), []string{"spec.files[1]", "Duplicate"}},
		"one port twice":           {object("ports", list(object("name", "a", "containerPort", 8080), object("name", "other", "containerPort", 8080))), []string{"spec.ports[a], spec.ports[other] have one containerPort"}},
		"a helper's port":          {object("helpers", helper("ports", list(object("name", "p", "containerPort", 8081)))), []string{"spec.ports[other], spec.helpers[h].ports[p] have one containerPort"}},
		"one envName twice": {object("channels", nil, "files", nil, "helpers", nil, "credentials", list(object("name", "a", "sealed", "seal.v1.a.b.c.d.e", "delivery", "Env", "envName", "KEY"),
			object("name", "b", "sealed", "seal.v1.a.b.c.d.e", "delivery", "Env", "envName", "KEY"))), []string{"spec.credentials[a].envName, spec.credentials[b].envName"}},
		"an env of an envName's name": {object("env", list(object("name", "LEGACY", "value", "x"))), []string{"spec.credentials[legacy].envName"}},
		"an envName that is Lethe's": {object("channels", nil, "files", nil, "helpers", nil, "credentials", list(object("name", "a", "sealed", "seal.v1.a.b.c.d.e", "delivery", "Env", "envName", "HOME"))),
			[]string{"spec.credentials[a].envName", "HOME and TMPDIR"}},
		"TZ beside timeZone":        {object("env", list(object("name", "TZ", "value", "UTC"))), []string{"spec.env[TZ]", "spec.timeZone"}},
		"a helper's TZ":             {object("helpers", helper("env", list(object("name", "TZ", "value", "UTC")))), []string{"spec.helpers[h].env[TZ]"}},
		"TZ without timeZone":       {object("timeZone", nil, "env", list(object("name", "TZ", "value", "UTC"))), nil},
		"a helper's env":            {object("helpers", helper("credentials", list("legacy"), "env", list(object("name", "LEGACY", "value", "x")))), []string{"spec.helpers[h].env"}},
		"another's env":             {object("helpers", helper("env", list(object("name", "LEGACY", "value", "x")))), nil},
		"a credential of nobody":    {object("helpers", helper("credentials", list("nobody"))), []string{"spec.helpers[h].credentials names what the bot does not have"}},
		"no storage to share":       {object("storage", nil, "helpers", helper("mounts", list("Storage"))), []string{"spec.helpers[h].mounts: Storage"}},
		"no scratch to share":       {object("scratch", nil, "helpers", helper("mounts", list("Scratch"))), []string{"spec.helpers[h].mounts: Scratch"}},
		"two helpers of a name":     {object("helpers", append(helper(), helper()...)), []string{"spec.helpers[1]", "Duplicate"}},
		"a file of nobody's":        {object("files", list(object("path", "/x", "content", "a ${credential:nobody} b"))), []string{"spec.files[/x].content", "must name an entry of spec.credentials"}},
		"a file that is not closed": {object("files", list(object("path", "/x", "content", "a ${credential:token"))), []string{"spec.files[/x].content"}},
		"a file that escapes":       {object("files", list(object("path", "/x", "content", "$${credential:nobody} $$${credential:x} ${credential:token} ${HOME} $5"))), nil},
		"two sources of a file":     {object("files", list(object("path", "/x", "content", "a", "configMapKeyRef", object("name", "a", "key", "b")))), []string{"exactly one of content and configMapKeyRef"}},
		"no source of a file":       {object("files", list(object("path", "/x"))), []string{"exactly one of content and configMapKeyRef"}},
		"more memory than there is": {object("scratch", list(object("path", "/cache", "medium", "Memory", "size", "128Mi"))), []string{"spec.scratch[/cache] in Memory", "resources.limits.memory"}},
		"as much memory as by default": {object("resources", nil, "scratch", list(object("path", "/a", "medium", "Memory", "size", "192Mi"), object("path", "/cache", "medium", "Memory"))),
			[]string{"spec.scratch[/cache] in Memory"}},
		"memory within a request": {object("resources", object("requests", object("memory", "512Mi")), "scratch", list(object("path", "/cache", "medium", "Memory", "size", "400Mi"))), nil},
		"more disk than is said":  {object("resources", object("limits", object("ephemeral-storage", "1Gi")), "scratch", list(object("path", "/cache", "size", "2Gi"))), []string{"resources.limits.ephemeral-storage"}},
		"a probe of two types":    {object("probes", object("liveness", object("type", "TCP", "port", "other", "path", "/"))), []string{"spec.probes.liveness.path", "HTTP"}},
		"a probe without a port":  {object("probes", object("liveness", object("path", "/"))), []string{"spec.probes.liveness.port"}},
		"an Exec with a port":     {object("probes", object("liveness", object("type", "Exec", "port", "other", "command", list("/x")))), []string{"spec.probes.liveness.port"}},
		"an Exec of nothing":      {object("probes", object("liveness", object("type", "Exec"))), []string{"spec.probes.liveness.command"}},
		"all three types": {object("probes", object("liveness", object("type", "Exec", "command", list("/x")), "startup", object("type", "TCP", "port", "other"), "readiness", object("port", "other"))),
			nil},
		"an unknown zone":          {object("timeZone", "Europe/Brelin"), []string{"spec.timeZone", "Europe/Brelin", "must be a zone of the IANA database such as Europe/Berlin"}},
		"a prompt of 30 000 bytes": {object("env", list(object("name", "PROMPT", "value", strings.Repeat("p", 30_000)))), nil},
		"a file of 64 KiB":         {object("files", list(object("path", "/x", "content", strings.Repeat("p", 65_536)))), nil},
		// What a Pod has there is refused with its remedy (TestWhatPodSecurityForbidsIsRefused); elsewhere it is as
		// unknown as any other name.
		"a host's folder": {object("scratch", list(object("path", "/x", "hostPath", object("path", "/etc")))), []string{`unknown field "spec.scratch[0].hostPath"`}},
	} {
		o := kinds()["BotDeployment"].build(t)
		spec := o.Object["spec"].(map[string]any)
		for field, value := range tc.set {
			if spec[field] = value; value == nil {
				delete(spec, field)
			}
			if field == "storage" || field == "scratch" {
				if _, own := tc.set["helpers"]; !own {
					delete(spec, "helpers")
				}
			}
		}
		err := apply(t, sent(t, o))
		if tc.says == nil && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, says := range tc.says {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %q", name, err, says)
			}
		}
	}
}

// sent is an object as a client sends it: numbers are int64.
func sent(t *testing.T, o *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	b, err := o.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	out := &unstructured.Unstructured{}
	if err := out.UnmarshalJSON(b); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRandomBotsAreTaken: the bots that ten thousand pods are rendered of (TestPodsAreRestricted) are ones that the
// API server takes. It is asked about some of them.
func TestRandomBotsAreTaken(t *testing.T) {
	enforced(t)
	for seed := range uint64(400) {
		bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("random-%d", seed)}, Spec: specs.Random(seed)}
		if err := cluster.Client.Create(t.Context(), bot.DeepCopy(), client.DryRunAll); err != nil {
			t.Errorf("bot %d: %v\n%+v", seed, err, bot.Spec)
			break
		}
		if seed%20 != 0 {
			continue
		}
		// And none with one thing that is wrong.
		for what, spoil := range map[string]func(map[string]any){
			"a port below 1024": func(s map[string]any) { s["ports"] = []any{map[string]any{"name": "low", "containerPort": int64(80)}} },
			"a mount at /etc":   func(s map[string]any) { s["scratch"] = []any{map[string]any{"path": "/etc"}} },
			"a token in /run": func(s map[string]any) {
				s["files"] = []any{map[string]any{"path": "/var/run/secrets/x", "content": "x"}}
			},
			"a device": func(s map[string]any) {
				s["resources"] = map[string]any{"limits": map[string]any{"nvidia.com/gpu": "1"}}
			},
			"a user": func(s map[string]any) { s["runAsUser"] = int64(0) },
		} {
			if err := apply(t, spoilt(t, bot, spoil)); err == nil {
				t.Errorf("bot %d is taken with %s", seed, what)
			}
		}
		// Nor with what Pod Security forbids, though the client asks for no validation: each row at one bot.
		for i, row := range forbidden {
			if at := row.bot(bot); uint64(i)%20 == seed/20 && at != "" {
				if err := applyAs(t, spoilt(t, bot, func(s map[string]any) { set(t, s, at, row.value(t)) }), "Ignore"); !refused(err, at) {
					t.Errorf("bot %d with spec.%s %s: %v", seed, at, row.json, err)
				}
			}
		}
	}
}

// spoilt is a bot as a client sends it, with something changed.
func spoilt(t *testing.T, bot *v1alpha1.BotDeployment, spoil func(spec map[string]any)) *unstructured.Unstructured {
	t.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(bot)
	if err != nil {
		t.Fatal(err)
	}
	spoil(content["spec"].(map[string]any))
	o := &unstructured.Unstructured{Object: content}
	o.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("BotDeployment"))
	return sent(t, o)
}
