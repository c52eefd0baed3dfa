package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// oldest is the oldest minor version of Kubernetes that Lethe runs on.
const oldest = 34

// Facts are what a cluster was found to be, before anything is touched.
type Facts struct {
	Context, Server, User string
	Version               string // of the API server, as v1.36.3
	Minor                 int
	Nodes                 []string // those that can take pods
	Architectures         []string // of those
	APIPorts              []int32  // of the API server's own endpoints
	DefaultClass          bool     // a StorageClass is the default
	DNSPods               int      // that have the labels which the chart looks for
	Minikube              bool     // the kubeconfig says that minikube made the cluster
	// Was is the play that was here and is not all gone, or nil; Mark is what it is known by, and WasDNS where its
	// chart put the manager's role.
	Was    *Play
	Mark   types.UID
	WasDNS string
	// DNS is where the chart will put the manager's role.
	DNS string
	// Busy: that play is at work now.
	Busy bool
	// Released is what has our release's annotations without a mark.
	Released []string
	// Volumes are released ones of earlier claims that had the play's names. They stay.
	Volumes []string
	// Foreign is what stands where the demo's things would stand and is not the demo's.
	Foreign []string
	// Missing are rights that the user lacks.
	Missing []string
}

// Wishes are what the user said.
type Wishes struct {
	Delivery     Delivery
	Postgres     string // an image; empty: one that is made of this machine's own
	StorageClass string // for the key-encryption key's volume; empty: the default one
	Values       string // a file for the chart; empty: none
}

// Problems are why the demo cannot be played here, each with what to do. None: it can.
func (f Facts) Problems(w Wishes) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if f.Minor < oldest {
		say("the cluster's Kubernetes is %s, and Lethe needs 1.%d or newer", f.Version, oldest)
	}
	if len(f.Missing) > 0 {
		say("you may not do all that is done here, and lack: %s. Whoever is bound to the ClusterRole cluster-admin may", Some(f.Missing))
		return out // without them nothing more was looked at
	}
	switch {
	case len(f.Nodes) == 0:
		say("no node is ready and takes pods: see kubectl get nodes")
	case len(f.Architectures) != 1:
		say("the nodes are of several architectures (%s), and the demo makes its images for one: cordon the others", strings.Join(f.Architectures, ", "))
	}
	if !f.DefaultClass && w.StorageClass == "" {
		say("no StorageClass is the default, and the key-encryption key needs a volume: name a class with STORAGE_CLASS=…")
	}
	if f.DNSPods == 0 && w.Values == "" {
		say("no pod in kube-system has the label k8s-app=kube-dns, so that Lethe would open DNS to nothing: say where yours answers in a file of "+
			"values (dns.*, docs/platforms.md) and name it with %s", "VALUES=…")
	}
	if f.Busy {
		say("%v", ErrBusy)
	}
	if len(f.Foreign) > 0 {
		what := "Lethe is installed here already, or something has the names that would be used"
		if f.Was != nil {
			what = "the demo's Lethe has work that is not the demo's"
		}
		say("%s: %s. Nothing begins, since its end would take these away: use another cluster, or remove these first (docs/upgrade.md)", what, Some(f.Foreign))
	}
	return out
}

// Some of a list that may be long.
func Some(list []string) string {
	const most = 12
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

// Refused joins problems to one error.
func Refused(problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	return errors.New("this cannot be done on this cluster, and nothing was touched:\n  - " + strings.Join(problems, "\n  - "))
}

// where is the beginning of both questions.
func (f Facts) where() string {
	return fmt.Sprintf(`
  context   %s
  server    %s
  user      %s
  version   Kubernetes %s, %s
`, f.Context, f.Server, f.User, f.Version, f.nodes())
}

func (f Facts) nodes() string {
	if len(f.Nodes) == 1 {
		return "one node: " + f.Nodes[0]
	}
	return fmt.Sprintf("%d nodes: %s", len(f.Nodes), Some(f.Nodes))
}

// Question tells all that a play will touch.
func (f Facts) Question(p *Play, w Wishes) string {
	postgres := "an image made of this machine's own PostgreSQL"
	if w.Postgres != "" {
		postgres = w.Postgres
	}
	class := "the default class"
	if w.StorageClass != "" {
		class = "class " + w.StorageClass
	}
	again, kept := "", ""
	if len(f.Volumes) > 0 {
		kept = "\nVolumes of earlier claims that had these names stay as they are: " + Some(f.Volumes) + ".\n"
	}
	if f.Was != nil {
		again = "\nAn earlier demo, or test, is here, whole or in part. All of it is removed first.\n"
	}
	return fmt.Sprintf(`%s on a cluster that is not made for it:
%s%s
It makes, and %s:
  namespaces     %s
  cluster-wide   four CustomResourceDefinitions of lethe.dev; ClusterRoles, ClusterRoleBindings, ValidatingAdmissionPolicies and, where the API
                 server has the kind, a MutatingAdmissionPolicy, with their bindings, PriorityClasses, FlowSchemas and
                 PriorityLevelConfigurations, all called lethe or lethe-…;
                 %s
  %-14s a Role and a RoleBinding, lethe-manager-dns (the manager may list Services and EndpointSlices there)
  volume         one of 1Mi of %s, for a key-encryption key that is made here
  images         %s
  PostgreSQL     a pod in %s, of %s
Kubernetes' own roles view, edit and admin know Lethe's kinds while it is there. Nothing else of the cluster's is changed, and no Secret of
another namespace is read. The images stay on the nodes%s until they are cleaned up there.
%s`, p.Begins, f.where(), again, p.Undo, strings.Join(p.Namespaces(), ", "), p.Work, f.DNS, class, w.Delivery, Namespace, postgres,
		map[bool]string{true: " and in the registry"}[w.Delivery.Push], kept)
}

// DownQuestion tells all that goes.
func (f Facts) DownQuestion() string {
	return fmt.Sprintf(`What carries the mark of the demo, or of the tests, is about to be removed from this cluster:
%s
  namespaces     %s
  cluster-wide   what its release of the chart made (lethe, lethe-…), the four CustomResourceDefinitions of lethe.dev and what is in them
  %-14s the Role and the RoleBinding lethe-manager-dns
`, f.where(), strings.Join(f.Was.Namespaces(), ", "), f.WasDNS)
}

// Agree shows a question and wants the context's name typed, unless the user has said it beforehand: yes is that, or
// empty.
func Agree(in io.Reader, out io.Writer, terminal bool, yes, question, kubeContext string) error {
	if _, err := io.WriteString(out, question); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	if yes != "" && yes != kubeContext {
		return fmt.Errorf("YES=%s is not the context's name, and nothing was touched: YES=%s says yes beforehand", yes, kubeContext)
	}
	if yes != "" {
		_, err := fmt.Fprintf(out, "\nYES=%s was given: it begins.\n", yes)
		return err
	}
	if !terminal {
		return fmt.Errorf("there is no terminal to ask on, and nothing was touched: YES=%s, the context's name, says yes beforehand", kubeContext)
	}
	if _, err := fmt.Fprintf(out, "\nType the context's name, %s, to begin: ", kubeContext); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if kubeContext == "" || strings.TrimSpace(line) != kubeContext {
		return errors.New("the answer was another, and nothing was touched")
	}
	return nil
}

func sorted(set map[string]bool) []string {
	var out []string
	for s := range set {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}
