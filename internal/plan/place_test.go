package plan

import (
	"errors"
	"testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// What an approval named before a place was a union is what it names now.
func TestTheDigestOfATableStaysAsItWas(t *testing.T) {
	d := v1alpha1.Dataset{Name: "messages", Table: v1alpha1.Table{Name: "messages", Key: []v1alpha1.Identifier{"id"},
		AgeColumn: v1alpha1.AgeColumn{Name: "created_at", Type: v1alpha1.AgeTimestamptz}}}
	place := PlaceOf(&d)
	if d.Table.Schema != "" || place.Name() != "public.messages" || place.Age() != "created_at" || place.IsShared() {
		t.Errorf("%+v became %+v", d.Table, place.Table)
	}
	if got := place.Digest(); got != "1d2fb9aea82ff665768c154caf715046" {
		t.Errorf("its digest is %s", got)
	}
	if (Place{}).Digest() == place.Digest() {
		t.Error("nowhere is defined as a table is")
	}
}

func TestADatasetThatLiesNowhereIsNoPlan(t *testing.T) {
	for name, change := range map[string]func(*Plan){
		"a dataset":    func(p *Plan) { p.Datasets[0].Place = Place{} },
		"an exemption": func(p *Plan) { p.Exempt = append(p.Exempt, Exemption{}) },
	} {
		p := Compile(shared(makePolicy("p", v1alpha1.PolicyAudit, makeRule("Conversations", days(90))))).Plan
		change(&p)
		b, err := Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Whoever asks the methods of a place that this version does not know hears nothing, and takes it for no table.
	if (Place{}).Name() != "" || (Place{}).Age() != "" || (Place{}).IsShared() || (Exemption{}).Name() != "" {
		t.Error("nowhere has a name")
	}
}
