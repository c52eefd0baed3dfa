package postgres

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/internal/stores"
	"github.com/lethe-dev/lethe/test/storetest"
)

// stage is a database of ours under the contract's suite.
type stage struct{ *world }

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T, tables ...string) storetest.Stage {
		var config Config
		var sql []string
		s := stage{}
		for _, name := range tables {
			config.Datasets = append(config.Datasets, Dataset{Name: name, Place: s.Place(name, true)})
			sql = append(sql, "CREATE TABLE "+name+" (id text PRIMARY KEY, tenant text, at timestamptz); CREATE INDEX ON "+name+" (tenant, at); CREATE INDEX ON "+name+" (at)")
		}
		s.world = newWorld(t, config, sql...)
		return s
	})
}

func (stage) Engine() stores.Engine { return Engine{} }

func (s stage) Where() (plan.Target, stores.Credentials) {
	ca, err := os.ReadFile(server.CAFile)
	if err != nil {
		s.t.Fatal(err)
	}
	return plan.Target{Type: v1alpha1.StorePostgres, Postgres: &plan.PostgresTarget{Host: server.Host, Port: int32(server.Port), Database: s.database, Username: s.role, CABundle: string(ca)}}, stores.Credentials{sealing.PasswordKey: []byte(rolePassword)}
}

func (stage) Place(name string, shared bool) plan.Place {
	t := aTable(name)
	if shared {
		t.TenantColumn = "tenant"
	}
	return plan.Place{Table: &t}
}

func (stage) Exempt(name string) plan.Exemption {
	return plan.Exemption{Table: &plan.TableName{Schema: "public", Name: v1alpha1.Identifier(name)}}
}

func (s stage) Put(ctx context.Context, table string, records ...storetest.Record) error {
	var keys []string
	var tenants []*string
	var ages []*time.Time
	for i := range records {
		r := &records[i]
		keys = append(keys, r.Key)
		tenants, ages = append(tenants, nil), append(ages, nil)
		if r.Tenant != "" {
			tenants[i] = &r.Tenant
		}
		if !r.At.IsZero() {
			ages[i] = &r.At
		}
	}
	_, err := s.admin.Exec(ctx, "INSERT INTO "+table+` (id, tenant, at) SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[])
		ON CONFLICT (id) DO UPDATE SET tenant = excluded.tenant, at = excluded.at`, keys, tenants, ages)
	return err
}

func (s stage) Keys(_ context.Context, table string) ([]string, error) {
	return s.admin.List("SELECT id FROM " + table), nil
}

func (s stage) Hide(ctx context.Context, table string) error {
	_, policy := s.admin.Exec(ctx, "CREATE POLICY plain ON "+table+" USING (tenant = 'plain')")
	_, on := s.admin.Exec(ctx, "ALTER TABLE "+table+" ENABLE ROW LEVEL SECURITY")
	return errors.Join(policy, on)
}

// The keyserver hands out what the spec of a store names; the engine needs just that.
func TestCredentialsAreThoseOfTheSpec(t *testing.T) {
	spec := v1alpha1.DataStoreSpec{Type: v1alpha1.StorePostgres, Postgres: &v1alpha1.PostgresStore{Password: "seal.v1.x"}}
	with := stores.Credentials{}
	for _, c := range spec.Credentials() {
		with[c.Name] = []byte("x")
		if c.Sealed != "seal.v1.x" || spec.CredentialField(c.Name) != c.Field || c.Field == "" {
			t.Errorf("%+v", c)
		}
	}
	if err := with.Check(Engine{}); err != nil {
		t.Error(err)
	}
	kept := spec
	if spec.DropCredentials(); spec.Postgres.Password != "" || kept.Postgres.Password == "" {
		t.Errorf("%+v is kept in memory, %+v is the caller's", spec.Postgres, kept.Postgres)
	}
}
