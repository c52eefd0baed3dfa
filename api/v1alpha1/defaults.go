package v1alpha1

// Defaults that the CRDs' schemas fill in and that code needs too, for an object that no API server has filled in: a
// manifest that is sealed for, a Tenant without a quota. The marker on the field says the same
// (TestDefaultsAreTheMarkers); a default that only the marker has stands there alone.
const (
	// DefaultQuotaBots are how many BotDeployments a Tenant may have.
	DefaultQuotaBots int32 = 50
	// DefaultQuotaStores are how many DataStores a Tenant may have.
	DefaultQuotaStores int32 = 10
	// DefaultQuotaPods are how many pods a Tenant may have at a time.
	DefaultQuotaPods int32 = 50
	// DefaultPostgresPort is the port of a PostgreSQL server.
	DefaultPostgresPort int32 = 5432
	// DefaultReclaimPolicy is what happens to a bot's volume when the bot is deleted.
	DefaultReclaimPolicy = "Retain"
)
