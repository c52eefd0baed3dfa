package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// Exit codes of status. One means, as of any command, that it could not look.
const (
	exitNeedsAction = 2
	exitProgressing = 3
)

// errExit ends a command with an exit code of its own; its output has said why.
type errExit int

func (e errExit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// kindWords are what people may call a kind on the command line.
var kindWords = map[string]string{
	"tenant": resources.KindTenant, "tenants": resources.KindTenant,
	"bot": resources.KindBotDeployment, "bots": resources.KindBotDeployment, "botdeployment": resources.KindBotDeployment, "botdeployments": resources.KindBotDeployment,
	"store": resources.KindDataStore, "stores": resources.KindDataStore, "datastore": resources.KindDataStore, "datastores": resources.KindDataStore,
	"policy": resources.KindDataRetentionPolicy, "policies": resources.KindDataRetentionPolicy, "drp": resources.KindDataRetentionPolicy,
	"dataretentionpolicy": resources.KindDataRetentionPolicy, "dataretentionpolicies": resources.KindDataRetentionPolicy,
}

// plurals are what the API calls the kinds.
var plurals = map[string]string{resources.KindTenant: "tenants", resources.KindBotDeployment: "botdeployments", resources.KindDataStore: "datastores",
	resources.KindDataRetentionPolicy: "dataretentionpolicies"}

type statusOptions struct {
	all      bool
	selector string
	output   *outputFlag
}

func newStatus(s *shell) *cobra.Command {
	o := &statusOptions{}
	cmd := &cobra.Command{
		Use:   "status [KIND[/NAME] | KIND [NAMESPACE/]NAME]...",
		Short: "Say of tenants, bots, stores and policies what is, what is wrong, and what to do next",
		Long: `Say of each object what is, what is wrong and what to do next. KIND is tenant, bot, store or policy. Without arguments it is
about the bots and stores of the present namespace and its tenant; with -A about everything.

Ready means in force as written, and for stores and policies also that nothing is late. Progressing comes right by itself.
NeedsAction waits for a person.

Exit codes: 0 when all are Ready; 2 when any needs action; 3 when none does and any is still progressing; 1 when it could
not look, or found nothing.`,
		Example: `  kubectl lethe status
  kubectl lethe status bot acme-bots/support
  kubectl lethe status tenant/acme store/chat -n acme-bots
  kubectl lethe status -A -o json`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: s.completeKindAndName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.output.check(); err != nil {
				return err
			}
			return s.status(cmd.Context(), o, args)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "look at all namespaces")
	f.StringVarP(&o.selector, "selector", "l", "", "look at objects with these labels only")
	o.output = addOutput(cmd, "json, yaml or name; left out, words", forPrograms...)
	return cmd
}

// asked is one question to the cluster: objects of kinds, or one by name.
type askedFor struct{ types, namespace, name string }

// parse understands kubectl's forms, and namespace/name behind a kind. It repeats nothing of what it does not
// understand.
func (s *shell) parseStatus(o *statusOptions, args []string) ([]askedFor, error) {
	present, err := s.namespace()
	if err != nil {
		return nil, err
	}
	wrong := errors.New("say tenant, bot, store or policy, with a name where one is meant: bot/support, or bot acme-bots/support")
	kindOf := func(words string) (string, error) {
		var out []string
		for word := range strings.SplitSeq(words, ",") {
			kind, ok := kindWords[strings.ToLower(strings.TrimSuffix(word, "."+v1alpha1.Group))]
			if !ok {
				return "", wrong
			}
			out = append(out, plurals[kind]+"."+v1alpha1.Group)
		}
		return strings.Join(out, ","), nil
	}
	if len(args) == 0 {
		if o.all {
			words, err := kindOf("tenants,bots,stores,policies")
			return []askedFor{{types: words}}, err
		}
		words, err := kindOf("bots,stores")
		return []askedFor{{types: words, namespace: present}}, err
	}
	if !strings.Contains(args[0], "/") {
		types, err := kindOf(args[0])
		if err != nil {
			return nil, err
		}
		if len(args) == 1 {
			return []askedFor{{types: types, namespace: present}}, nil
		}
		var out []askedFor
		for _, name := range args[1:] {
			key, err := s.reference("the name", name)
			if err != nil {
				return nil, err
			}
			out = append(out, askedFor{types, key.Namespace, key.Name})
		}
		return out, nil
	}
	var out []askedFor
	for _, arg := range args {
		word, name, ok := strings.Cut(arg, "/")
		types, err := kindOf(word)
		if err != nil || !ok {
			return nil, wrong
		}
		key, err := s.reference("the name", name)
		if err != nil {
			return nil, err
		}
		out = append(out, askedFor{types, key.Namespace, key.Name})
	}
	return out, nil
}

func (s *shell) status(ctx context.Context, o *statusOptions, args []string) error {
	if o.selector != "" {
		if _, err := labels.Parse(o.selector); err != nil {
			return errors.New("-l: not a label selector; say key=value,key=value")
		}
	}
	questions, err := s.parseStatus(o, args)
	if err != nil {
		return err
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	var reports []*objectReport
	if len(args) == 0 && !o.all && o.selector == "" {
		tenant, err := s.tenantOfNamespace(ctx, c, questions[0].namespace)
		if err != nil {
			return err
		}
		if tenant != nil {
			reports = append(reports, s.report(tenant))
		}
	}
	for _, q := range questions {
		if o.selector != "" && q.name != "" {
			return errors.New("-l selects objects, and a name names one: give one of them")
		}
		b := resource.NewBuilder(s.config).WithScheme(c.Scheme(), v1alpha1.GroupVersion).NamespaceParam(q.namespace).DefaultNamespace().
			AllNamespaces(o.all && q.name == "").RequestChunksOf(500).ContinueOnError().Latest().Flatten()
		if q.name == "" {
			b = b.LabelSelectorParam(o.selector).ResourceTypeOrNameArgs(true, q.types)
		} else {
			b = b.ResourceTypeOrNameArgs(true, q.types, q.name)
		}
		infos, err := b.Do().Infos()
		if err != nil {
			return s.lookError(q, err)
		}
		for _, info := range infos {
			if o, ok := info.Object.(client.Object); ok {
				reports = append(reports, s.report(o))
			}
		}
	}
	if len(reports) == 0 {
		hint := " (-A looks at all namespaces)"
		if o.all {
			hint = ""
		}
		s.note("nothing was found%s", hint)
		return errFailing
	}
	slices.SortStableFunc(reports, func(a, b *objectReport) int {
		return cmp.Or(cmp.Compare(a.order(), b.order()), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	if err := s.printReports(o, reports); err != nil {
		return err
	}
	code := 0
	for _, r := range reports {
		switch {
		case r.State == stateNeedsAction:
			code = exitNeedsAction
		case r.State == stateProgressing && code == 0:
			code = exitProgressing
		}
	}
	if code != 0 {
		return errExit(code)
	}
	return nil
}

// lookError names what was asked for.
func (s *shell) lookError(q askedFor, err error) error {
	what := strings.ReplaceAll(q.types, "."+v1alpha1.Group, "")
	if q.name != "" {
		what += " " + q.name
	}
	if q.namespace != "" && !strings.HasPrefix(what, "tenants") && !strings.HasPrefix(what, "dataretention") {
		what += " in namespace " + q.namespace
	}
	var several utilerrors.Aggregate
	if errors.As(err, &several) && len(several.Errors()) > 0 {
		err = several.Errors()[0] // the others say the same of other kinds
	}
	switch {
	case apierrors.IsNotFound(err) && q.name != "":
		return fmt.Errorf("there is no %s; `kubectl lethe status -A` shows what there is", what)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("you may not read %s: %w", what, err)
	default:
		return fmt.Errorf("read %s: %w", what, err)
	}
}

// tenantOfNamespace is the tenant of a namespace, for who may read it; nil without one. Where it is nobody's, or the
// caller may not know, a Tenant that lists it says why it has it not.
func (s *shell) tenantOfNamespace(ctx context.Context, c client.Client, namespace string) (*v1alpha1.Tenant, error) {
	var list v1alpha1.TenantList
	err := c.List(ctx, &list)
	if apierrors.IsForbidden(err) {
		s.note("note: you may not read Tenants, so the one of namespace %s is left out", namespace)
		return nil, nil //nolint:nilnil // none that may be shown
	}
	if err != nil {
		return nil, fmt.Errorf("list Tenants: %w", err)
	}
	whose, err := tenancy.Read(ctx, c, namespace)
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, err
	}
	if whose.Tenant != nil {
		return whose.Tenant, nil
	}
	for i := range list.Items {
		if tenancy.Lists(&list.Items[i], namespace) {
			return &list.Items[i], nil
		}
	}
	return nil, nil //nolint:nilnil // there is none
}

func (s *shell) printReports(o *statusOptions, reports []*objectReport) error {
	if o.output.format != "" {
		views := make([]shown, 0, len(reports))
		for _, r := range reports {
			views = append(views, view("ObjectStatus", r, r.Kind, r.Namespace, r.Name))
		}
		return s.printList(o.output, views)
	}
	for i, r := range reports {
		if i > 0 {
			if err := s.say("\n"); err != nil {
				return err
			}
		}
		if err := s.sayReport(r); err != nil {
			return err
		}
	}
	return nil
}

func (s *shell) sayReport(r *objectReport) error {
	reason, since := "", ""
	if r.Reason != "" && r.Reason != r.State {
		reason = ", " + r.Reason
	}
	if r.Since != nil {
		since = ", for " + age(max(0, s.now().Sub(r.Since.Time)))
	}
	if err := s.say("%s %s: %s%s%s\n", r.Kind, r.where(), r.State, reason, since); err != nil {
		return err
	}
	for _, line := range r.Facts {
		if err := s.say("  %s\n", line); err != nil {
			return err
		}
	}
	for _, p := range r.Problems {
		if err := s.say("  %s: %s: %s\n", p.Condition, p.Reason, p.Message); err != nil {
			return err
		}
		if p.Next == "" {
			continue
		}
		if err := s.say("    next: %s\n", p.Next); err != nil {
			return err
		}
	}
	return nil
}

// completeKindAndName offers kinds, kinds with names behind a slash, and names behind a kind.
func (s *shell) completeKindAndName(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && !strings.Contains(args[0], "/") {
		kind, ok := kindWords[args[0]]
		if !ok {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return s.complete(kind, begun)
	}
	if word, name, ok := strings.Cut(begun, "/"); ok {
		kind, known := kindWords[word]
		if !known {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, directive := s.complete(kind, name)
		for i := range names {
			names[i] = word + "/" + names[i]
		}
		return names, directive
	}
	return beginning([]string{"tenant", "bot", "store", "policy"}, begun), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// longAgo is before any cluster: a condition that says it says nothing of when.
var longAgo = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
