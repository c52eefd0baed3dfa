package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// StoreType says which engine a store is.
// +kubebuilder:validation:Enum=Postgres
type StoreType string

// StorePostgres is PostgreSQL 13 or newer.
const StorePostgres StoreType = "Postgres"

// StoreTenancy says whose records a store holds.
// +kubebuilder:validation:Enum=Dedicated;Shared
type StoreTenancy string

const (
	// TenancyDedicated: every record is the tenant's whose namespace the store is in.
	TenancyDedicated StoreTenancy = "Dedicated"
	// TenancyShared: a column of each table names the tenant. Only in namespaces of a Platform tenant.
	TenancyShared StoreTenancy = "Shared"
)

// PostgresStore says where a PostgreSQL database is and how to log in. TLS with a verified certificate and
// SCRAM-SHA-256 are always used. The rules on its fields stand here and not on the fields, since a failed rule on a
// field repeats the value: a whole connection string, password included, is easily pasted into one of them.
//
// +kubebuilder:validation:XValidation:rule="self.host.matches('^[A-Za-z0-9:]([-A-Za-z0-9.:]*[A-Za-z0-9:])?$') && (isIP(self.host) || !self.host.contains(':'))",message="must be a name or an address alone, without port, user or scheme: port, database and username have fields of their own, and the password belongs, sealed, into password (the value is not repeated here)",fieldPath=".host"
// +kubebuilder:validation:XValidation:rule="!isIP(self.host) || !['0.0.0.0/8','100.100.100.200/32','127.0.0.0/8','168.63.129.16/32','169.254.0.0/16','192.0.0.192/32','255.255.255.255/32','::/64','64:ff9b::/104','64:ff9b::6464:64c8/128','64:ff9b::7f00:0/104','64:ff9b::a83f:8110/128','64:ff9b::a9fe:0/112','64:ff9b::c000:c0/128','64:ff9b::ffff:ffff/128','64:ff9b:1::/48','2001::/32','2002::/16','fd00:42::42/128','fd00:ec2::/32','fd20:ce::254/128','fe80::/10'].exists(p, cidr(p).containsIP(ip(self.host)))",message="is the node itself, a metadata service, or a form of IPv6 that hides an IPv4 address: write the address that the database server has for others",fieldPath=".host"
// +kubebuilder:validation:XValidation:rule="self.database.matches('^[^\\x00-\\x20\\x7f:/?@=]([^\\x00-\\x1f\\x7f:/?@=]*[^\\x00-\\x20\\x7f:/?@=])?$')",message="must be the name of the database alone (the value is not repeated here)",fieldPath=".database"
// +kubebuilder:validation:XValidation:rule="self.username.matches('^[^\\x00-\\x20\\x7f:/?=]([^\\x00-\\x1f\\x7f:/?=]*[^\\x00-\\x20\\x7f:/?=])?$')",message="must be the name of the role alone (the value is not repeated here)",fieldPath=".username"
// +kubebuilder:validation:XValidation:rule="!has(self.caBundle) || (self.caBundle.contains('-----BEGIN CERTIFICATE-----') && !self.caBundle.contains('PRIVATE KEY'))",message="must hold certificates in PEM, and no private key (the value is not repeated here)",fieldPath=".caBundle"
// +kubebuilder:validation:XValidation:rule="self.password.matches('^seal[.]v1([.][A-Za-z0-9_-]+){5}$')",message="not a sealed value: run 'kubectl lethe seal' and paste its output, which begins with seal.v1 (the value is not repeated here)",fieldPath=".password"
type PostgresStore struct {
	// host name or address. It must be in the server's certificate.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host,omitempty"`

	// port of the server. Defaults to 5432.
	// +optional
	// +kubebuilder:default=5432
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// database name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Database string `json:"database,omitempty"`

	// caBundle holds the PEM certificates that the server's certificate must chain to. Left out, the system's own.
	// +optional
	// +kubebuilder:validation:MaxLength=8192
	CABundle string `json:"caBundle,omitempty"`

	// username of the role that sweeps log in as. `kubectl lethe grants` prints the SQL that makes it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Username string `json:"username,omitempty"`

	// password of the role, sealed by `kubectl lethe seal` for this store and this destination: host, port, database,
	// username and caBundle are bound into it, so that a value sealed for one server opens for no other.
	// +required
	Password SealedValue `json:"password,omitempty"`
}

// AgeColumnType says how a column tells the age of its row.
// +kubebuilder:validation:Enum=Timestamptz;Timestamp;Date
type AgeColumnType string

const (
	// AgeTimestamptz is timestamp with time zone.
	AgeTimestamptz AgeColumnType = "Timestamptz"
	// AgeTimestamp is timestamp without time zone; timeZone says which one it was written in.
	AgeTimestamp AgeColumnType = "Timestamp"
	// AgeDate is a date; the row's age begins at the end of that day in timeZone.
	AgeDate AgeColumnType = "Date"
)

// AgeColumn is the column that tells how old a row is.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[A-Za-z_][A-Za-z0-9_$]*$')",message="must be a name in the catalogue: letters, digits, _ and $, no digit first (the value is not repeated here)",fieldPath=".name"
// +kubebuilder:validation:XValidation:rule="!has(self.timeZone) || self.timeZone.matches('^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$')",message="must be a zone of the IANA database such as Europe/Berlin (the value is not repeated here)",fieldPath=".timeZone"
// +kubebuilder:validation:XValidation:rule="!has(self.timeZone) || !self.timeZone.matches('^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$') || timestamp('2000-01-01T00:00:00Z').getFullYear(self.timeZone) > 0",message="timeZone must be a zone of the IANA database such as Europe/Berlin or Etc/UTC",fieldPath=".timeZone"
// +kubebuilder:validation:XValidation:rule="(self.type == 'Timestamptz') != has(self.timeZone)",message="timeZone must be set for Timestamp and Date, and only then: a time without a zone has no age"
type AgeColumn struct {
	// name of the column.
	// +required
	Name Identifier `json:"name,omitempty"`

	// type of the column, as the database declares it.
	// +required
	Type AgeColumnType `json:"type,omitempty"`

	// timeZone of the IANA database that Timestamp and Date are meant in, for example Etc/UTC.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	TimeZone string `json:"timeZone,omitempty"`
}

// Identifier is the name of a schema, table or column. No quotes, no SQL: it is looked up in the catalogue as it is.
// Its form is checked by rules on the parents: a failed rule on the field itself would repeat the value, whatever was
// pasted there.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
type Identifier string

// Table says which table a dataset is.
//
// +kubebuilder:validation:XValidation:rule="!has(self.schema) || self.schema.matches('^[A-Za-z_][A-Za-z0-9_$]*$')",message="must be a name in the catalogue: letters, digits, _ and $, no digit first (the value is not repeated here)",fieldPath=".schema"
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[A-Za-z_][A-Za-z0-9_$]*$')",message="must be a name in the catalogue: letters, digits, _ and $, no digit first (the value is not repeated here)",fieldPath=".name"
// +kubebuilder:validation:XValidation:rule="self.key.all(k, k.matches('^[A-Za-z_][A-Za-z0-9_$]*$'))",message="must be names of columns: letters, digits, _ and $, no digit first (the values are not repeated here)",messageExpression="'key[%d] must be the name of a column: letters, digits, _ and $, no digit first (the value is not repeated here)'.format([self.key.map(k, k.matches('^[A-Za-z_][A-Za-z0-9_$]*$')).indexOf(false)])",fieldPath=".key"
// +kubebuilder:validation:XValidation:rule="!has(self.tenantColumn) || self.tenantColumn.matches('^[A-Za-z_][A-Za-z0-9_$]*$')",message="must be a name in the catalogue: letters, digits, _ and $, no digit first (the value is not repeated here)",fieldPath=".tenantColumn"
type Table struct {
	// schema of the table. Defaults to public.
	// +optional
	Schema Identifier `json:"schema,omitempty"`

	// name of the table.
	// +required
	Name Identifier `json:"name,omitempty"`

	// key columns: the primary key, or a unique index without NULLs.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	Key []Identifier `json:"key,omitempty"`

	// ageColumn of the table.
	// +required
	AgeColumn AgeColumn `json:"ageColumn,omitzero"`

	// tenantColumn names the tenant of each row. Required in a Shared store, refused in a Dedicated one.
	// +optional
	TenantColumn Identifier `json:"tenantColumn,omitempty"`
}

// Floor is a length of time that the law asks to keep a record for. Nothing deletes earlier, whatever a policy says.
//
// +kubebuilder:validation:XValidation:rule="self.legalBasis.matches('^[^\\x00-\\x1f\\x7f]+$')",message="must be one line of words, without control characters",fieldPath=".legalBasis"
type Floor struct {
	// retainFor at least this long.
	// +required
	RetainFor *Period `json:"retainFor,omitempty"`

	// legalBasis in words: which law asks for it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	LegalBasis string `json:"legalBasis,omitempty"`
}

// Dataset is one table of the store and what it holds.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be lower-case letters, digits and dashes (the value is not repeated here)",fieldPath=".name"
// +kubebuilder:validation:XValidation:rule="self.dataClass.matches('^[A-Z][A-Za-z0-9]*$')",message="write a class as Conversations: letters and digits, a capital first (the value is not repeated here)",fieldPath=".dataClass"
type Dataset struct {
	// name of the dataset.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// dataClass of its records. A policy's rule with the same class governs it.
	// +required
	DataClass DataClass `json:"dataClass,omitempty"`

	// table that holds them.
	// +required
	Table Table `json:"table,omitzero"`

	// floor under every window. Left out, there is none.
	// +optional
	Floor *Floor `json:"floor,omitempty"`
}

// Exemption names a table that holds nothing to delete.
//
// +kubebuilder:validation:XValidation:rule="!has(self.schema) || self.schema.matches('^[A-Za-z_][A-Za-z0-9_$]*$')",message="must be a name in the catalogue: letters, digits, _ and $, no digit first (the value is not repeated here)",fieldPath=".schema"
// +kubebuilder:validation:XValidation:rule="self.table.matches('^[A-Za-z_][A-Za-z0-9_$]*$')",message="must be a name in the catalogue: letters, digits, _ and $, no digit first (the value is not repeated here)",fieldPath=".table"
// +kubebuilder:validation:XValidation:rule="self.reason.matches('^[^\\x00-\\x1f\\x7f]+$')",message="must be one line of words, without control characters",fieldPath=".reason"
type Exemption struct {
	// schema of the table. Defaults to public.
	// +optional
	Schema Identifier `json:"schema,omitempty"`

	// table that is exempt.
	// +required
	Table Identifier `json:"table,omitempty"`

	// reason in words, for the person who audits it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Reason string `json:"reason,omitempty"`
}

// ApprovedWindow approves that rows of a dataset are deleted when they are older than a window.
//
// +kubebuilder:validation:XValidation:rule="self.dataset.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be the name of a dataset (the value is not repeated here)",fieldPath=".dataset"
// +kubebuilder:validation:XValidation:rule="self.placeDigest.matches('^[0-9a-f]+$')",message="must be the digest that 'kubectl lethe approve' writes: hex digits (the value is not repeated here)",fieldPath=".placeDigest"
type ApprovedWindow struct {
	// dataset of the store.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Dataset string `json:"dataset,omitempty"`

	// placeDigest is the digest of the dataset's table, key, age column, tenant column and declared relations, as
	// `kubectl lethe approve` writes it. Approving a dataset approves that table and no other.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	PlaceDigest string `json:"placeDigest,omitempty"`

	// retainFor is the shortest window approved for rows of any tenant that is not named in tenants.
	// +required
	RetainFor *Period `json:"retainFor,omitempty"`

	// floor of the dataset when it was approved. A shorter one, or none, waits for approval: a floor also holds rows
	// that floored rows refer to. Left out, the dataset had none.
	// +optional
	Floor *Period `json:"floor,omitempty"`

	// tenants with a shorter window of their own.
	// +optional
	// +listType=map
	// +listMapKey=tenant
	// +kubebuilder:validation:MaxItems=256
	Tenants []ApprovedTenantWindow `json:"tenants,omitempty"`

	// anyTenant approves the shorter windows of all tenants that are not named in tenants, whoever they are and
	// whatever they are called, down to a bound. Left out, only those are approved that tenants names.
	// +optional
	AnyTenant *ApprovedBound `json:"anyTenant,omitempty"`

	// backlog is how much sweeps may delete on top of what the brake allows. Left out, the brake alone decides.
	// +optional
	Backlog *ApprovedBacklog `json:"backlog,omitempty"`
}

// ApprovedBound approves the windows of tenants by a bound.
type ApprovedBound struct {
	// notBelow is the shortest window approved for the rows of any tenant in a Shared store. A tenant with a shorter
	// one waits for approval, and its rows go after this one until then.
	// +required
	NotBelow *Period `json:"notBelow,omitempty"`
}

// ApprovedBacklog is permission to delete so many rows of a dataset, whatever the brake says. It is used up as it is
// used: each row that sweeps delete from the dataset is taken off, in the keyserver's account, before it goes.
// Writing the same permission again renews nothing.
//
// +kubebuilder:validation:XValidation:rule="self.approvedAt < self.until && self.until - self.approvedAt <= duration('168h')",message="must be later than approvedAt, by at most 7 days",fieldPath=".until"
type ApprovedBacklog struct {
	// rows that were found waiting when it was approved.
	// +required
	// +kubebuilder:validation:Minimum=1
	Rows int64 `json:"rows,omitempty"`

	// approvedAt is when it was approved. One that is older than another that was used before is not good any more.
	// +required
	ApprovedAt metav1.Time `json:"approvedAt,omitempty"`

	// until ends it.
	// +required
	Until metav1.Time `json:"until,omitempty"`
}

// ApprovedTenantWindow is a shorter window approved for one tenant. Its name has a rule for each thing that no
// Tenant's name has, since there may be 131 072 of these in a store, and the API server reckons by that, and by its
// length, what one rule costs.
//
// +kubebuilder:validation:XValidation:rule="!self.tenant.matches('[^--z]')",message="must be the name of a Tenant (the value is not repeated here)",fieldPath=".tenant"
// +kubebuilder:validation:XValidation:rule="!self.tenant.matches('[/:-`]')",message="must be the name of a Tenant (the value is not repeated here)",fieldPath=".tenant"
// +kubebuilder:validation:XValidation:rule="!self.tenant.matches(r'^\\W|\\W$')",message="must be the name of a Tenant (the value is not repeated here)",fieldPath=".tenant"
type ApprovedTenantWindow struct {
	// tenant by name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Tenant string `json:"tenant,omitempty"`

	// retainFor approved for this tenant's rows.
	// +required
	RetainFor *Period `json:"retainFor,omitempty"`

	// externalIDs that this is approved for: what the tenant was called in the store when it was approved. Rows under
	// another one wait for approval, and go by the window of rows of any tenant until then. Left out, it is approved
	// for none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	ExternalIDs []string `json:"externalIDs,omitempty"`
}

// ApprovedPlan is what a person agreed may be deleted. `kubectl lethe approve` writes it from what an Audit measured;
// in Git it is reviewed like any other change. A plan that could delete more than this waits.
//
// +kubebuilder:validation:XValidation:rule="self.database.matches('^[^\\x00-\\x20\\x7f:/?@=]([^\\x00-\\x1f\\x7f:/?@=]*[^\\x00-\\x20\\x7f:/?@=])?$')",message="must be the name of the database alone (the value is not repeated here)",fieldPath=".database"
// +kubebuilder:validation:XValidation:rule="self.address.matches('^[^\\x00-\\x20\\x7f/?@=]+:[0-9]+$')",message="must be host:port, as spec.postgres has them (the value is not repeated here)",fieldPath=".address"
// +kubebuilder:validation:XValidation:rule="self.tenancy == 'Shared' || self.windows.all(w, !has(w.anyTenant))",message="anyTenant is refused unless tenancy is Shared: in a Dedicated store every row is of one tenant",messageExpression="'windows[%d].anyTenant is refused unless tenancy is Shared: in a Dedicated store every row is of one tenant'.format([self.windows.map(w, has(w.anyTenant)).indexOf(true)])"
// +kubebuilder:validation:XValidation:rule="self.tenancy == 'Shared' || self.windows.all(w, !has(w.tenants) || w.tenants.all(t, !has(t.externalIDs)))",message="externalIDs are refused unless tenancy is Shared: in a Dedicated store every row is of one tenant",messageExpression="[self.windows.map(w, has(w.tenants) && w.tenants.exists(t, has(t.externalIDs))).indexOf(true)].map(i, 'windows[%d].tenants[%d].externalIDs are refused unless tenancy is Shared: in a Dedicated store every row is of one tenant'.format([i, self.windows[i].tenants.map(t, has(t.externalIDs)).indexOf(true)]))[0]"
type ApprovedPlan struct {
	// identity of the store that was audited, as status.plan shows it.
	// +required
	Identity StoreIdentity `json:"identity,omitzero"`

	// database name that was audited.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Database string `json:"database,omitempty"`

	// address of the server that was audited, as host:port.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=261
	Address string `json:"address,omitempty"`

	// seen is where in its life the database was when it was approved. A database that is found at an earlier one has
	// gone back in time, and nothing is deleted from it until that is approved. Left out, only what sweeps have seen
	// counts.
	// +optional
	Seen *ApprovedPoint `json:"seen,omitempty"`

	// tenancy that was audited.
	// +required
	Tenancy StoreTenancy `json:"tenancy,omitempty"`

	// windows that are approved.
	// +required
	// +listType=map
	// +listMapKey=dataset
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=512
	Windows []ApprovedWindow `json:"windows,omitempty"`
}

// ApprovedPoint is a place in the life of a store that a person has looked at.
type ApprovedPoint struct {
	// point in the life of the store, as status.point shows it.
	// +required
	Point StorePoint `json:"point,omitzero"`

	// approvedAt is when it was approved. What sweeps saw before counts no more.
	// +required
	ApprovedAt metav1.Time `json:"approvedAt,omitempty"`
}

// RelationState says whether rows refer to each other through a column that no foreign key ties.
// +kubebuilder:validation:Enum=Declared;Denied
type RelationState string

const (
	// RelationDeclared: they do, and a row keeps the one that it refers to, as under a foreign key.
	RelationDeclared RelationState = "Declared"
	// RelationDenied: they do not, or need not: rows go although the column may name them.
	RelationDenied RelationState = "Denied"
)

// Relation says of one column, which is named after a dataset and which no foreign key ties to it, whether its rows
// refer to that dataset's. Until a person has said so, nothing is deleted from either.
//
// +kubebuilder:validation:XValidation:rule="!has(self.schema) || self.schema.matches('^[A-Za-z_][A-Za-z0-9_$]*$')",message="must be a name in the catalogue: letters, digits, _ and $, no digit first (the value is not repeated here)",fieldPath=".schema"
// +kubebuilder:validation:XValidation:rule="self.table.matches('^[A-Za-z_][A-Za-z0-9_$]*$')",message="must be a name in the catalogue: letters, digits, _ and $, no digit first (the value is not repeated here)",fieldPath=".table"
// +kubebuilder:validation:XValidation:rule="self.column.matches('^[A-Za-z_][A-Za-z0-9_$]*$')",message="must be a name in the catalogue: letters, digits, _ and $, no digit first (the value is not repeated here)",fieldPath=".column"
// +kubebuilder:validation:XValidation:rule="self.references.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be lower-case letters, digits and dashes (the value is not repeated here)",fieldPath=".references"
// +kubebuilder:validation:XValidation:rule="!has(self.referencesColumn) || self.referencesColumn.matches('^[A-Za-z_][A-Za-z0-9_$]*$')",message="must be a name in the catalogue: letters, digits, _ and $, no digit first (the value is not repeated here)",fieldPath=".referencesColumn"
// +kubebuilder:validation:XValidation:rule="self.reason.matches('^[^\\x00-\\x1f\\x7f]+$')",message="must be one line of words, without control characters",fieldPath=".reason"
type Relation struct {
	// schema of the table; public unless said.
	// +optional
	Schema Identifier `json:"schema,omitempty"`

	// table whose column it is: a dataset's, or any other of the database.
	// +required
	Table Identifier `json:"table,omitempty"`

	// column that names rows of the dataset.
	// +required
	Column Identifier `json:"column,omitempty"`

	// references is the name of the dataset whose rows the column names.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	References string `json:"references,omitempty"`

	// referencesColumn is the column of that dataset's table which is compared; left out, its key, which must be one
	// column then.
	// +optional
	ReferencesColumn Identifier `json:"referencesColumn,omitempty"`

	// state of the relation: Declared gives it the force of a foreign key, Denied says that there is none.
	// +required
	State RelationState `json:"state,omitempty"`

	// reason in words, for the person who audits it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Reason string `json:"reason,omitempty"`
}

// Brake stops a sweep that would delete suspiciously much.
type Brake struct {
	// maxPercentOfTable that one sweep may delete from a table. Defaults to 20. A table of fewer than 1000 rows is
	// not braked.
	// +optional
	// +kubebuilder:default=20
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxPercentOfTable int32 `json:"maxPercentOfTable,omitempty"`
}

// DataStoreSpec says where a store is, what it holds, and what may be deleted from it.
//
// +kubebuilder:validation:XValidation:rule="!has(self.tenantIDType) || self.tenantIDType.matches('^[A-Z][A-Za-z0-9]*$')",message="must be a type of the Tenants externalIDs such as AccountID (the value is not repeated here)",fieldPath=".tenantIDType"
// +kubebuilder:validation:XValidation:rule="(self.type == 'Postgres') == has(self.postgres)",message="postgres must be set when type is Postgres, and only then"
// +kubebuilder:validation:XValidation:rule="self.datasets.all(d, (self.tenancy == 'Shared') == has(d.table.tenantColumn))",message="table.tenantColumn is required in a Shared store and refused in a Dedicated one",messageExpression="(self.tenancy == 'Shared' ? 'spec.datasets[%d].table.tenantColumn is required in a Shared store: name the column that says whose a row is' : 'spec.datasets[%d].table.tenantColumn is refused in a Dedicated store, where every row is of one tenant: leave it out, or make a store with tenancy: Shared').format([self.datasets.map(d, (self.tenancy == 'Shared') == has(d.table.tenantColumn)).indexOf(false)])"
// +kubebuilder:validation:XValidation:rule="(self.tenancy == 'Shared') == has(self.tenantIDType)",message="spec.tenantIDType is required in a Shared store and refused in a Dedicated one"
type DataStoreSpec struct {
	// type of the store.
	// +required
	Type StoreType `json:"type,omitempty"`

	// postgres is set when type is Postgres.
	// +optional
	Postgres *PostgresStore `json:"postgres,omitempty"`

	// tenancy of the store. Defaults to Dedicated. Cannot be changed.
	// +optional
	// +kubebuilder:default=Dedicated
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec.tenancy cannot be changed: make a new DataStore"
	Tenancy StoreTenancy `json:"tenancy,omitempty"`

	// tenantIDType is the type of the Tenants' externalIDs that the tenant columns hold.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	TenantIDType string `json:"tenantIDType,omitempty"`

	// datasets are the map of the store: which table holds which class of data.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=512
	Datasets []Dataset `json:"datasets,omitempty"`

	// exempt tables, each with a reason. A table that is neither a dataset nor exempt makes CoverageComplete False.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	Exempt []Exemption `json:"exempt,omitempty"`

	// relations that the database does not know: columns that are named after a dataset and that no foreign key ties
	// to it. Each is declared or denied, with a reason; until then nothing is deleted from either dataset.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	Relations []Relation `json:"relations,omitempty"`

	// brake of the store.
	// +optional
	// +kubebuilder:default={}
	Brake Brake `json:"brake,omitzero"`

	// approvedPlan is what a person agreed may be deleted. Left out, nothing is.
	// +optional
	ApprovedPlan *ApprovedPlan `json:"approvedPlan,omitempty"`
}

// DataStore is a database that holds records of a tenant, or of many, and the map of what lies where.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=store;stores,categories=lethe
// +kubebuilder:printcolumn:name="Tenant",type=string,JSONPath=`.status.tenant`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Approved",type=string,JSONPath=`.status.conditions[?(@.type=="Approved")].status`
// +kubebuilder:printcolumn:name="Compliant",type=string,JSONPath=`.status.conditions[?(@.type=="Compliant")].status`
// +kubebuilder:printcolumn:name="Overdue",type=string,JSONPath=`.status.overdueRows`
// +kubebuilder:printcolumn:name="Measured",type=date,JSONPath=`.status.measuredAt`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type DataStore struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is asked for.
	// +required
	Spec DataStoreSpec `json:"spec,omitzero"`

	// status is what was observed. An object begins with one that says that nobody has looked at it, so that nothing
	// takes it for ready, whether the manager runs or not.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1,"overdueRows":"unknown","conditions":{{"type":"Ready","status":"Unknown","reason":"Pending","message":"Waiting for the manager to look at it.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"Reconciling","status":"True","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"CredentialsReady","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"Reachable","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"CoverageComplete","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"Approved","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"Compliant","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"}}}
	Status DataStoreStatus `json:"status,omitzero"`
}

// DataStoreList is a list of stores.
//
// +kubebuilder:object:root=true
type DataStoreList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DataStore `json:"items"`
}
