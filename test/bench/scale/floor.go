package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// benchAgent begins the user agent of everything that the bench itself sends.
const benchAgent = "lethe-bench"

// labelFloor marks what the bare client made, to find it again. It creates under the identities of our own programs,
// and these may set our labels only.
const labelFloor = "lethe.dev/bench-floor"

// patternBots are made before all others. The first one lets everything come to be that is made once, and the last
// one is the pattern.
const patternBots = 2

// template is one child of a real bot, as the API server stored it, without what the API server gave it.
type template struct {
	object client.Object
	body   []byte
	keys   bool // by the keyserver
	owned  bool // by the bot
}

// floor makes what a bot consists of, without any of the work that leads to it.
type floor struct {
	bench         *bench
	name, uid     string // of the bot that was taken as a pattern
	namespace     string
	templates     []template
	manager, keys client.Client
	people        client.Client // who make bots
	rounds        int
	// owners of the clones by namespace: objects that have an owner cost the cluster more.
	owners map[string][]metav1.OwnerReference
}

// newFloor takes one real bot as a pattern.
func (b *bench) newFloor(ctx context.Context) (*floor, error) {
	t := b.world.tenants[0]
	var bot *v1alpha1.BotDeployment
	var requests []request
	for i := range patternBots {
		var err error
		if bot, err = b.bot(t, fmt.Sprintf("pattern-bot-%d", i)); err != nil {
			return nil, err
		}
		if _, err := b.calm(ctx); err != nil {
			return nil, err
		}
		if err := b.admin.Create(ctx, bot); err != nil {
			return nil, fmt.Errorf("make a bot: %w", err)
		}
		if err := b.waitReady(ctx, i+1); err != nil {
			return nil, err
		}
		if requests, err = b.calm(ctx); err != nil {
			return nil, err
		}
	}
	f := &floor{bench: b, name: bot.Name, uid: string(bot.UID), namespace: t.namespace, owners: map[string][]metav1.OwnerReference{}}
	if err := f.makeOwners(ctx); err != nil {
		return nil, err
	}
	for _, r := range requests {
		if !r.child() {
			continue
		}
		if err := f.take(ctx, r); err != nil {
			return nil, err
		}
	}
	if len(f.templates) == 0 {
		return nil, errNoChildren
	}
	for account, to := range map[string]*client.Client{managerAccount: &f.manager, keysAccount: &f.keys} {
		token, err := b.token(ctx, account, "")
		if err != nil {
			return nil, err
		}
		config, err := b.cluster.config(token, benchAgent+"-floor")
		if err != nil {
			return nil, err
		}
		if *to, err = client.New(config, client.Options{Scheme: b.scheme, Mapper: b.admin.RESTMapper()}); err != nil {
			return nil, fmt.Errorf("make a bare client: %w", err)
		}
	}
	config, err := b.cluster.config("", benchAgent+"-floor")
	if err != nil {
		return nil, err
	}
	if f.people, err = client.New(config, client.Options{Scheme: b.scheme, Mapper: b.admin.RESTMapper()}); err != nil {
		return nil, fmt.Errorf("make a bare client: %w", err)
	}
	return f, nil
}

// makeOwners makes one small object in each namespace that owns the clones there, as a bot owns its children.
func (f *floor) makeOwners(ctx context.Context) error {
	yes := true
	for _, t := range f.bench.world.tenants {
		owner := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: t.namespace, Name: "floor"}}
		if err := f.bench.admin.Create(ctx, owner); err != nil {
			return fmt.Errorf("make an owner for the floor: %w", err)
		}
		f.owners[t.namespace] = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID, Controller: &yes}}
	}
	return nil
}

// take reads one child of the pattern.
func (f *floor) take(ctx context.Context, r request) error {
	gvk, err := f.bench.admin.RESTMapper().KindFor(groupOf(r.resource))
	if err != nil {
		return fmt.Errorf("find the kind of %s: %w", r.resource, err)
	}
	made, err := f.bench.scheme.New(gvk)
	if err != nil {
		return fmt.Errorf("make a %s: %w", gvk.Kind, err)
	}
	object, ok := made.(client.Object)
	if !ok {
		return fmt.Errorf("a %s is no object", gvk.Kind)
	}
	if err := f.bench.admin.Get(ctx, client.ObjectKey{Namespace: r.namespace, Name: r.name}, object); err != nil {
		return fmt.Errorf("read a child: %w", err)
	}
	owned := len(object.GetOwnerReferences()) > 0
	object.SetUID("")
	object.SetResourceVersion("")
	object.SetCreationTimestamp(metav1.Time{})
	object.SetGeneration(0)
	object.SetManagedFields(nil)
	object.SetOwnerReferences(nil) // the clones get one that exists
	labels := object.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[labelFloor] = "true"
	object.SetLabels(labels)
	body, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("encode a child: %w", err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return fmt.Errorf("decode a child: %w", err)
	}
	delete(fields, "status")
	if body, err = json.Marshal(fields); err != nil {
		return fmt.Errorf("encode a child: %w", err)
	}
	f.templates = append(f.templates, template{object: object, body: body, keys: r.user == keysUser, owned: owned})
	return nil
}

// groupOf the resources that a bot's children are of.
func groupOf(resource string) schema.GroupVersionResource {
	group := map[string]string{"networkpolicies": "networking.k8s.io", "statefulsets": "apps"}[resource]
	return schema.GroupVersionResource{Group: group, Resource: resource}
}

// kinds of the children, for people.
func (f *floor) kinds() string {
	var names []string
	for _, t := range f.templates {
		gvk, err := f.bench.admin.GroupVersionKindFor(t.object)
		if err != nil {
			return err.Error()
		}
		names = append(names, gvk.Kind)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// floorRates are how many objects a second the bare client makes: of the children alone, and of the children and the
// BotDeployments, which are all objects that there are at the end of a run with Lethe.
type floorRates struct{ children, all float64 }

// run creates the children of as many bots as there are, and then as many BotDeployments, which nobody looks at.
func (f *floor) run(ctx context.Context) (floorRates, error) {
	f.rounds++
	clones, bots := make([][]client.Object, f.bench.bots), make([]client.Object, f.bench.bots)
	for i := range clones {
		var err error
		if clones[i], err = f.clone(i); err != nil {
			return floorRates{}, err
		}
		if bots[i], err = f.bot(i); err != nil {
			return floorRates{}, err
		}
	}
	if _, err := f.bench.calm(ctx); err != nil {
		return floorRates{}, err
	}
	sampler := f.bench.sample(ctx)
	profiled := f.bench.profileAPIServer(ctx, fmt.Sprintf("floor%d", f.rounds))
	err := parallel(ctx, f.bench.workers, len(clones), func(ctx context.Context, i int) error {
		for j, object := range clones[i] {
			c := f.manager
			if f.templates[j].keys {
				c = f.keys
			}
			if err := c.Create(ctx, object); err != nil {
				return fmt.Errorf("floor: create a %T: %w", object, err)
			}
		}
		return nil
	})
	if err == nil {
		err = parallel(ctx, f.bench.workers, len(bots), func(ctx context.Context, i int) error {
			return f.people.Create(ctx, bots[i])
		})
	}
	if err != nil {
		return floorRates{}, fmt.Errorf("floor: %w", err)
	}
	requests, err := f.bench.calm(ctx)
	if err != nil {
		return floorRates{}, err
	}
	profiled()
	return f.count(requests, sampler)
}

// count reads out of the audit log how long the bare client took.
func (f *floor) count(requests []request, sampler *sampler) (floorRates, error) {
	w, all := span(requests, request.floorChild, request.floorChild), span(requests, request.floor, request.floor)
	if want := f.bench.bots * len(f.templates); w.n != want || all.n != want+f.bench.bots || w.took() <= 0 {
		return floorRates{}, fmt.Errorf("floor: the audit log shows %d children instead of %d, and %d objects instead of %d", w.n, want, all.n, want+f.bench.bots)
	}
	cpu := sampler.between(w.begin, w.end)
	f.bench.results.others = append(f.bench.results.others, cpu.others(w.took()))
	f.bench.results.cpu = append(f.bench.results.cpu, cpu.ours().Seconds()/float64(w.n))
	f.bench.step("floor %d: %d objects in %.1fs (%s)", f.rounds, w.n, w.took().Seconds(), latencies(requests, request.floorChild))
	f.bench.step("    processor time: %s", cpu)
	f.bench.step("    with the BotDeployments %d objects in %.1fs", all.n, all.took().Seconds())
	return floorRates{children: w.rate(), all: all.rate()}, nil
}

// bot is a BotDeployment that nobody looks at.
func (f *floor) bot(i int) (client.Object, error) {
	t := f.bench.world.tenants[i%len(f.bench.world.tenants)]
	bot, err := f.bench.bot(t, fmt.Sprintf("floor%d-bot-%05d", f.rounds, i))
	if err != nil {
		return nil, err
	}
	bot.Labels = map[string]string{labelFloor: "true"}
	return bot, nil
}

// clone gives the children of the pattern the names of another bot.
func (f *floor) clone(i int) ([]client.Object, error) {
	t := f.bench.world.tenants[i%len(f.bench.world.tenants)]
	names := strings.NewReplacer(
		f.name, fmt.Sprintf("floor%d-bot-%05d", f.rounds, i),
		f.uid, uuid.NewString(),
		`"namespace":"`+f.namespace+`"`, `"namespace":"`+t.namespace+`"`)
	var out []client.Object
	for _, tm := range f.templates {
		object, ok := tm.object.DeepCopyObject().(client.Object)
		if !ok {
			return nil, fmt.Errorf("a %T is no object", tm.object)
		}
		fresh, err := f.bench.scheme.New(mustKind(f.bench, object))
		if err != nil {
			return nil, fmt.Errorf("clone a %T: %w", object, err)
		}
		dec := json.NewDecoder(bytes.NewReader([]byte(names.Replace(string(tm.body)))))
		if err := dec.Decode(fresh); err != nil {
			return nil, fmt.Errorf("clone a %T: %w", object, err)
		}
		clone, ok := fresh.(client.Object)
		if !ok {
			return nil, fmt.Errorf("a %T is no object", fresh)
		}
		if clone.GetName() == tm.object.GetName() {
			clone.SetName(anotherDigest(clone.GetName())) // named by what the bot has and nobody else
		}
		if tm.owned {
			clone.SetOwnerReferences(f.owners[t.namespace])
		}
		out = append(out, clone)
	}
	return out, nil
}

// anotherDigest gives a name that ends with a digest in hex another one of the same length.
func anotherDigest(name string) string {
	i := strings.LastIndex(name, "-") + 1
	return name[:i] + strings.ReplaceAll(uuid.NewString()+uuid.NewString(), "-", "")[:len(name)-i]
}

func mustKind(b *bench, object client.Object) schema.GroupVersionKind {
	gvk, err := b.admin.GroupVersionKindFor(object)
	if err != nil {
		return schema.GroupVersionKind{} // scheme.New then says so
	}
	return gvk
}

// remove takes away what the floor made, so that the bots find the cluster as the floor found it. Each object goes by
// the hand that made it: nobody else may.
func (f *floor) remove(ctx context.Context) error {
	type thing struct {
		object client.Object
		by     client.Client
	}
	var all []thing
	for _, tm := range f.templates {
		by := f.manager
		if tm.keys {
			by = f.keys
		}
		gvk, err := f.bench.admin.GroupVersionKindFor(tm.object)
		if err != nil {
			return fmt.Errorf("find what the floor made: %w", err)
		}
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		if err := f.bench.admin.List(ctx, list, client.MatchingLabels{labelFloor: "true"}); err != nil {
			return fmt.Errorf("find what the floor made: %w", err)
		}
		for i := range list.Items {
			list.Items[i].SetGroupVersionKind(gvk)
			all = append(all, thing{&list.Items[i], by})
		}
	}
	err := parallel(ctx, f.bench.workers, len(all), func(ctx context.Context, i int) error {
		return client.IgnoreNotFound(all[i].by.Delete(ctx, all[i].object, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	})
	if err != nil {
		return fmt.Errorf("remove what the floor made: %w", err)
	}
	if err := f.removeBots(ctx); err != nil {
		return fmt.Errorf("remove the floor's BotDeployments: %w", err)
	}
	_, err = f.bench.calm(ctx)
	return err
}

// removeBots takes away the BotDeployments. There are no keys of theirs that the manager would have to ask for.
func (f *floor) removeBots(ctx context.Context) error {
	var bots v1alpha1.BotDeploymentList
	if err := f.people.List(ctx, &bots, client.MatchingLabels{labelFloor: "true"}); err != nil {
		return fmt.Errorf("list them: %w", err)
	}
	return parallel(ctx, f.bench.workers, len(bots.Items), func(ctx context.Context, i int) error {
		bot := &bots.Items[i]
		if len(bot.Finalizers) > 0 {
			before := bot.DeepCopy()
			bot.Finalizers = nil
			if err := f.manager.Patch(ctx, bot, client.MergeFrom(before)); err != nil {
				return fmt.Errorf("take the finalizer off: %w", err)
			}
		}
		return client.IgnoreNotFound(f.people.Delete(ctx, bot))
	})
}

// waitReady waits until as many bots are ready.
func (b *bench) waitReady(ctx context.Context, n int) error {
	return waitFor(ctx, fmt.Sprintf("%d ready bots", n), 15*time.Minute, time.Second, func(ctx context.Context) (bool, string, error) {
		ready, sample, err := b.botsReady(ctx)
		return ready >= n, fmt.Sprintf("%d ready; %s", ready, sample), err
	})
}
