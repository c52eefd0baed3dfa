package chatdb

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
)

// The quickstart's map says all that there is to say about this database: no table is left out, and nobody has to
// guess which rows refer to others.
func TestTheQuickstartMapsThisDatabase(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "examples", "quickstart", "store.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var store v1alpha1.DataStore
	if err := yaml.UnmarshalStrict(b, &store); err != nil {
		t.Fatal(err)
	}
	name := server.Database(t)
	admin := server.Admin(t, name)
	if err := Create(t.Context(), admin.Conn, Options{Messages: 3000, Now: now}); err != nil {
		t.Fatal(err)
	}
	store.Spec.Postgres.Database, store.Spec.Postgres.Username = name, "sweeper_"+name
	admin.Run(postgres.Grants(store.Spec))
	admin.Run("ALTER ROLE sweeper_" + name + " PASSWORD 'only-for-tests'")
	t.Cleanup(func() {
		if err := server.Exec(context.Background(), name, "DROP OWNED BY sweeper_"+name+"; DROP ROLE sweeper_"+name); err != nil {
			t.Errorf("drop the role: %v", err)
		}
	})
	ca, err := os.ReadFile(server.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	session, err := postgres.Connect(t.Context(), postgres.Target{Host: server.Host, Port: int32(server.Port), Database: name, Username: store.Spec.Postgres.Username, CABundle: string(ca)}, "only-for-tests", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close(t.Context()) }()
	var config postgres.Config
	for _, d := range store.Spec.Datasets {
		config.Datasets = append(config.Datasets, postgres.Dataset{Name: d.Name, Place: plan.PlaceOf(&d)})
	}
	for _, e := range store.Spec.Exempt {
		config.Exempt = append(config.Exempt, plan.Exemption{Table: &plan.TableName{Schema: e.Schema, Name: e.Table}})
	}
	st, err := postgres.Open(t.Context(), session, config)
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Uncovered()) > 0 || len(st.Undeclared()) > 0 {
		t.Errorf("uncovered %v, undeclared %v", st.Uncovered(), st.Undeclared())
	}
	for i, d := range config.Datasets {
		if p := st.Problem(i); p != nil {
			t.Errorf("%s: %+v", d.Name, p)
		}
	}
	if got := st.Pointers(); len(got) != 1 || got[0] != "attachments.file_name" {
		t.Errorf("pointers: %v", got)
	}
}
