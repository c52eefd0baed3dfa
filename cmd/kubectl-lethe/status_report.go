package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// States that status sums an object up in.
const (
	stateReady       = "Ready"
	stateProgressing = "Progressing"
	stateNeedsAction = "NeedsAction"
)

// objectReport is what status says of one object, for people and for programs.
type objectReport struct {
	Kind      string          `json:"objectKind"`
	Namespace string          `json:"-"`
	Name      string          `json:"-"`
	State     string          `json:"state"`
	Reason    string          `json:"reason,omitempty"`
	Since     *metav1.Time    `json:"since,omitempty"`
	Facts     []string        `json:"facts,omitempty"`
	Problems  []objectProblem `json:"problems,omitempty"`
}

// objectProblem is one thing that is not as it is to be, or that works and is worth a look.
type objectProblem struct {
	Condition string `json:"condition"`
	v1alpha1.Problem
	// Next is the command to go on with.
	Next string `json:"next,omitempty"`
}

func (r *objectReport) where() string {
	if r.Namespace == "" {
		return r.Name
	}
	return r.Namespace + "/" + r.Name
}

func (r *objectReport) order() int {
	for i, kind := range []string{resources.KindTenant, resources.KindBotDeployment, resources.KindDataStore} {
		if r.Kind == kind {
			return i
		}
	}
	return 3
}

// report sums one object up.
func (s *shell) report(o client.Object) *objectReport {
	r := &objectReport{Namespace: o.GetNamespace(), Name: o.GetName()}
	var conditions []metav1.Condition
	var observed int64
	tenant := ""
	switch o := o.(type) {
	case *v1alpha1.Tenant:
		r.Kind, conditions, observed, tenant = resources.KindTenant, o.Status.Conditions, o.Status.ObservedGeneration, o.Name
		r.Facts = tenantFacts(o)
	case *v1alpha1.BotDeployment:
		r.Kind, conditions, observed, tenant = resources.KindBotDeployment, o.Status.Conditions, o.Status.ObservedGeneration, o.Status.Tenant
		r.Facts = botFacts(o)
	case *v1alpha1.DataStore:
		r.Kind, conditions, observed, tenant = resources.KindDataStore, o.Status.Conditions, o.Status.ObservedGeneration, o.Status.Tenant
		r.Facts = s.storeFacts(o)
	case *v1alpha1.DataRetentionPolicy:
		r.Kind, conditions, observed = resources.KindDataRetentionPolicy, o.Status.Conditions, o.Status.ObservedGeneration
		r.Facts = policyFacts(o)
	}
	ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	switch {
	case ready == nil || observed < 1:
		r.State, r.Reason = stateProgressing, v1alpha1.ReasonPending
		r.add(tenant, v1alpha1.ConditionReady, v1alpha1.ReasonPending, "the manager has not looked at it yet")
		return r
	case observed != o.GetGeneration():
		r.State, r.Reason = stateProgressing, reasonSpecChanged
		r.add(tenant, v1alpha1.ConditionReady, v1alpha1.ReasonPending, "what is known is about an earlier spec; the manager has not looked at this one yet")
	case meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionStalled):
		r.State, r.Reason = stateNeedsAction, meta.FindStatusCondition(conditions, v1alpha1.ConditionStalled).Reason
	case ready.Status != metav1.ConditionTrue:
		r.State, r.Reason = stateProgressing, ready.Reason
	default:
		r.State, r.Reason = stateReady, ready.Reason
	}
	if ready.LastTransitionTime.After(longAgo) {
		r.Since = &ready.LastTransitionTime
	}
	if o.GetDeletionTimestamp() != nil && r.State == stateReady {
		r.State, r.Reason = stateProgressing, v1alpha1.ReasonDeleting
	}
	r.promise(conditions)
	r.collect(tenant, conditions)
	return r
}

// promise looks at Compliant: what is in force as written may still be late.
func (r *objectReport) promise(conditions []metav1.Condition) {
	c := meta.FindStatusCondition(conditions, v1alpha1.ConditionCompliant)
	if c == nil || r.State != stateReady {
		return
	}
	switch c.Status {
	case metav1.ConditionFalse:
		r.State, r.Reason = stateNeedsAction, c.Reason
	case metav1.ConditionUnknown:
		r.State, r.Reason = stateProgressing, c.Reason
	case metav1.ConditionTrue:
	}
}

// reasonSpecChanged is a word of this command's alone: no condition speaks of the present spec yet.
const reasonSpecChanged = "SpecChanged"

// worthALook are reasons of conditions that are True.
var worthALook = []string{v1alpha1.ReasonPlaintextInSpec, v1alpha1.ReasonPlaintext, v1alpha1.ReasonPodSecurityOverruled, v1alpha1.ReasonEgressBeyondCeiling,
	v1alpha1.ReasonUpdateStopped, v1alpha1.ReasonUpdateHeld, v1alpha1.ReasonUpdateWaits}

// collect gathers what the conditions say, each thing once.
func (r *objectReport) collect(tenant string, conditions []metav1.Condition) {
	for _, c := range conditions {
		negative := c.Type == v1alpha1.ConditionChangesPaused
		switch {
		case c.Type == v1alpha1.ConditionReconciling || c.Type == v1alpha1.ConditionStalled || c.Type == v1alpha1.ConditionInUse:
			continue // Ready, or a step, says the same
		case negative && c.Status != metav1.ConditionTrue:
			continue
		case !negative && c.Status == metav1.ConditionTrue && !looked(c.Reason):
			continue
		case c.Reason == v1alpha1.ReasonWaiting:
			continue // an earlier step is what is wrong
		}
		if told := status.See(conditions, c.Type); told == nil || told.Type != c.Type {
			continue // another condition says it
		}
		r.add(tenant, c.Type, c.Reason, c.Message)
	}
}

func looked(reason string) bool {
	return slices.Contains(worthALook, reason)
}

func (r *objectReport) add(tenant, condition, reason, message string) {
	r.Problems = append(r.Problems, objectProblem{Condition: condition, Problem: v1alpha1.Problem{Reason: reason, Message: message}, Next: r.next(tenant, reason, message)})
}

func tenantFacts(t *v1alpha1.Tenant) []string {
	names := make([]string, 0, len(t.Spec.Namespaces))
	for _, n := range t.Spec.Namespaces {
		names = append(names, n.Name)
	}
	facts := []string{fmt.Sprintf("%s, %s; namespaces %s", t.Spec.Class, t.Spec.State, strings.Join(names, ", "))}
	if keys := t.Status.SealingKeys; len(keys) > 0 {
		line := fmt.Sprintf("seal to key %s", keys[0].KID)
		if n := len(keys) - 1; n > 0 {
			line += fmt.Sprintf("; %s of earlier ones", many(n, "retired key"))
		}
		facts = append(facts, line)
	}
	if t.Status.KEKGrade == "Evaluation" {
		facts = append(facts, "the key-encryption key lies in a Secret of the same etcd: for evaluation only")
	}
	if v := t.Status.RetainedVolumes; v != nil {
		facts = append(facts, many(int(v.Count), "volume")+" of deleted bots")
	}
	return facts
}

func botFacts(b *v1alpha1.BotDeployment) []string {
	facts := []string{fmt.Sprintf("%s, image %s", b.Spec.OperatingMode, b.Spec.Image)}
	if n := len(b.Spec.Credentials); n > 0 {
		names := make([]string, 0, n)
		for _, c := range b.Spec.Credentials {
			names = append(names, c.Name)
		}
		facts = append(facts, "credentials "+strings.Join(names, ", "))
	}
	if c := b.Status.Claim; c != nil {
		facts = append(facts, "volume "+c.Name)
	}
	return facts
}

func (s *shell) storeFacts(d *v1alpha1.DataStore) []string {
	var facts []string
	if p := d.Spec.Postgres; p != nil {
		facts = append(facts, fmt.Sprintf("%s, database %s at %s:%d, %s", d.Spec.Tenancy, p.Database, p.Host, p.Port, many(len(d.Spec.Datasets), "dataset")))
	}
	measured := "never measured"
	if at := d.Status.MeasuredAt; at != nil {
		measured = fmt.Sprintf("measured %s ago: overdue %s", age(max(0, s.now().Sub(at.Time))), overdue(d, meta.IsStatusConditionTrue(d.Status.Conditions, v1alpha1.ConditionCompliant)))
	}
	return append(facts, measured)
}

func policyFacts(p *v1alpha1.DataRetentionPolicy) []string {
	line := fmt.Sprintf("%s, %s of %s compliant", p.Spec.Mode, strconv.Itoa(int(p.Status.Compliant)), many(int(p.Status.Matched), "store"))
	if p.Status.WorstStore != "" {
		line += ", the worst is " + p.Status.WorstStore
	}
	return []string{line}
}
