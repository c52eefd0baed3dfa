package report

// Reasons of a whole sweep (Report.Reason). Message says what to do.
const (
	ReasonUnreachable          = "Unreachable"          // no connection: host, port, network policy, or the server is down
	ReasonWrongPassword        = "WrongPassword"        // the role or its password is not accepted
	ReasonUntrustedCertificate = "UntrustedCertificate" // the server has no TLS, or a certificate that does not verify
	ReasonNoSCRAM              = "NoSCRAM"              // the server logs in by something else than SCRAM-SHA-256: no password was sent
	ReasonNoSuchDatabase       = "NoSuchDatabase"       // the server is there, the database is not
	ReasonUnsupportedServer    = "UnsupportedServer"    // too old, a standby, or without the settings that sweeping needs
	ReasonPlanMismatch         = "PlanMismatch"         // the plan file is not the one whose hash was given
	ReasonPlanExpired          = "PlanExpired"          // the plan's ValidUntil has passed
	ReasonLeaseRefused         = "LeaseRefused"         // the keyserver gave no lease: nothing was touched
	ReasonLeaseLost            = "LeaseLost"            // a lease was not renewed: stopped, nothing committed since
	ReasonStoreBusy            = "StoreBusy"            // another sweeper holds the store's lock
	ReasonIdentityChanged      = "IdentityChanged"      // not the database that was approved: only measured
	ReasonRestoredFrom         = "RestoredFrom"         // the database was put back to an earlier state: only measured
	ReasonClockSkew            = "ClockSkew"            // the store's and the pod's clocks differ by more than a minute
	ReasonTimeBudget           = "TimeBudget"           // the time budget ended; the next sweep goes on
	ReasonTerminated           = "Terminated"           // SIGTERM; the next sweep goes on
	ReasonDatasetsRefused      = "DatasetsRefused"      // at least one dataset was measured or deleted from only in part: see the lines
	ReasonStoreError           = "StoreError"           // the connection broke, or the store answered with an error
	ReasonInternal             = "Internal"             // a defect of the sweeper
)

// Reasons of single lines (Line.Reason). Each keeps the dataset from being measured or deleted from.
const (
	LineMissingTable         = "MissingTable"
	LineMissingColumn        = "MissingColumn"
	LineWrongAgeType         = "WrongAgeType"         // the age column is not of the declared type
	LineUnknownTimeZone      = "UnknownTimeZone"      // the declared zone does not exist
	LineKeyNotUnique         = "KeyNotUnique"         // the key columns are not a primary key or a unique index without NULLs
	LineMissingPrivilege     = "MissingPrivilege"     // the role lacks a grant
	LineUnsupportedTable     = "UnsupportedTable"     // a view, a foreign table, row security, a rewrite rule, inheritance, an extension's type as key
	LineUnclearTenant        = "UnclearTenant"        // the tenant column cannot hold what a tenant is called, or cannot tell two tenants apart
	LineUndeclaredForeignKey = "UndeclaredForeignKey" // a table that is no dataset refers to this one
	LineUnindexedForeignKey  = "UnindexedForeignKey"  // a foreign key into this table has no index on its columns
	LineUndeclaredRelation   = "UndeclaredRelation"   // a column is named after this dataset, or after another from here, and nothing ties the two
	LineRelationType         = "RelationType"         // spec.relations compares columns that an index does not compare
	LineCascade              = "Cascade"              // a CASCADE, SET NULL or SET DEFAULT reaches a table with a floor
	LineForeignKeyCycle      = "ForeignKeyCycle"      // tables refer to each other in a circle
	LineReplicaIdentity      = "ReplicaIdentity"      // a publication passes deletions on, and the table has no replica identity
	LineGuarded              = "Guarded"              // a trigger refuses to let rows go, or fails
	LineLocked               = "Locked"               // another session holds rows or the table locked
	LineContradiction        = "Contradiction"        // what refers to this dataset was promised a longer life
	LineSideEffect           = "SideEffect"           // deleting here changed other rows; rolled back
	LineBrakeTripped         = "BrakeTripped"         // more would go than the brake allows
	LineReturned             = "Returned"             // rows that had been deleted are there again
	LineTimeout              = "Timeout"              // a statement did not end in its time
	LinePlan                 = "Plan"                 // the plan itself names a problem of this dataset or rule
	LineUngoverned           = "Ungoverned"           // no rule governs this dataset
	LineStoreError           = "StoreError"           // the store answered with an error
	LineNotReached           = "NotReached"           // the sweep ended before it came to this dataset
)
