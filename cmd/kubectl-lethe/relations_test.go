package main

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Columns that nobody has spoken of are named by explain and approve, with YAML that can be applied as it is printed.
func TestRelationsAreAskedFor(t *testing.T) {
	store := makeWorld(t)
	c := newCaller(t)
	setStatus(t, store, "measured", func(s *v1alpha1.DataStoreStatus) {
		s.UndeclaredRelations = []v1alpha1.UndeclaredRelation{{Table: "public.payments", Column: "contact_id", References: "contacts"}, {Table: "public.ratings", Column: "messageId", References: "messages"}}
		s.UndeclaredRelationCount = 5
	})
	explained := c.ok("", "explain", "platform/chat").out
	if !strings.Contains(explained, "Nothing is deleted from either until spec.relations says so, with your reason.\nThese are the first; 3 more will be shown when they are said.") {
		t.Errorf("explain says:\n%s", explained)
	}
	if !strings.Contains(explained, "Deleted now: no, nobody has said whether rows refer to each other (below).") {
		t.Errorf("explain says that rows go:\n%s", explained)
	}
	if o := c.ok("", "plan", "platform/chat"); !strings.Contains(o.out, "no: undeclared relation, see explain") {
		t.Errorf("plan says that rows go:\n%s", o.out)
	}
	if o := c.ok("", "approve", "platform/chat", "-o", "yaml"); !strings.Contains(o.errOut, "column: messageId") {
		t.Errorf("approve says:\n%s", o.errOut)
	}

	var printed strings.Builder
	for line := range strings.SplitSeq(explained, "\n") {
		if strings.HasPrefix(line, "  spec:") || printed.Len() > 0 && strings.HasPrefix(line, "    ") {
			fmt.Fprintln(&printed, line[2:])
		}
	}
	patch, err := yaml.YAMLToJSON([]byte(printed.String()))
	if err != nil {
		t.Fatalf("%v:\n%s", err, printed.String())
	}
	if err := testEnv.Client.Patch(t.Context(), store, client.RawPatch("application/merge-patch+json", patch)); err != nil {
		t.Fatalf("what explain prints cannot be applied: %v\n%s", err, patch)
	}
	if n := len(store.Spec.Relations); n != 2 || store.Spec.Relations[1].Column != "messageId" || store.Spec.Relations[1].References != "messages" {
		t.Errorf("relations: %+v", store.Spec.Relations)
	}
	explained = c.ok("", "explain", "platform/chat").out
	if strings.Contains(explained, "until spec.relations says so") || !strings.Contains(explained, "public.ratings.messageId keeps the records that it names of messages") {
		t.Errorf("explain says after that:\n%s", explained)
	}
}

func TestApproveNamesPointersToFiles(t *testing.T) {
	store := makeWorld(t)
	c := newCaller(t)
	setStatus(t, store, "measured", func(s *v1alpha1.DataStoreStatus) {
		s.FilePointers, s.FilePointerCount = []string{"messages.attachment_url", "messages.storage_key"}, 3
	})
	const named = "messages.attachment_url, messages.storage_key and 1 more"
	if o := c.ok("", "explain", "platform/chat"); !strings.Contains(o.out, named) {
		t.Errorf("explain says:\n%s", o.out)
	}
	c.fails("", []string{"approve", "platform/chat", "--yes"}, "nothing was changed", "--leave-files")
	if err := testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(store), store); err != nil || store.Spec.ApprovedPlan != nil {
		t.Fatalf("approved without a word about the files: %+v, %v", store.Spec.ApprovedPlan, err)
	}
	if o := c.ok("", "approve", "platform/chat", "-o", "yaml"); !strings.HasPrefix(o.out, "# Files stay whose only pointer goes: "+named+"\n") {
		t.Errorf("the patch says:\n%s", o.out)
	}
	if o := c.ok("", "approve", "platform/chat", "--yes", "--leave-files"); !strings.Contains(o.errOut, named) {
		t.Errorf("approve says:\n%s", o.errOut)
	}
	if err := testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(store), store); err != nil || store.Spec.ApprovedPlan == nil {
		t.Errorf("nothing was approved: %v", err)
	}
}
