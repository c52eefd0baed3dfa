package report

// Reasons of a whole sweep. Those of the first group mean that the store was not reached, so nothing about it is known.
const (
	ReasonUnreachable          = "Unreachable"          // no connection: name, route, port, or the server is down
	ReasonUntrustedCertificate = "UntrustedCertificate" // TLS is refused, or the certificate does not chain to caBundle or name the host
	ReasonWrongPassword        = "WrongPassword"        // the server does not take the user and password
	ReasonNoSuchDatabase       = "NoSuchDatabase"       // the server has no database of that name, or the role may not connect to it
	ReasonUnsupportedServer    = "UnsupportedServer"    // another engine, or a version that is too old

	ReasonKeyserverUnreachable = "KeyserverUnreachable" // no lease could be asked for
	ReasonLeaseRefused         = "LeaseRefused"         // the keyserver refused the first lease
	ReasonLeaseLost            = "LeaseLost"            // the keyserver refused to renew it: the plan has changed, or the store is going away
	ReasonInUse                = "InUse"                // another sweep holds the store
	ReasonPlanExpired          = "PlanExpired"          // past validUntil
	ReasonPlanUnreadable       = "PlanUnreadable"       // no plan, or not the one that was named

	ReasonDatabaseChanged = "DatabaseChanged" // not the database that deletion was approved for: measured, nothing deleted
	ReasonClockSkew       = "ClockSkew"       // the store's clock and the pod's differ by more than 60 s: measured, nothing deleted
	ReasonTimeBudget      = "TimeBudget"      // the time ended first; the next sweep goes on
	ReasonInterrupted     = "Interrupted"     // the pod was told to stop
	ReasonInternal        = "Internal"        // an error of another kind
)

// Reached says whether a sweep that ended with this reason talked to the store; known is false when the reason does not tell.
func Reached(reason string) (reached, known bool) {
	switch reason {
	case ReasonUnreachable, ReasonUntrustedCertificate, ReasonWrongPassword, ReasonNoSuchDatabase, ReasonUnsupportedServer:
		return false, true
	case "", ReasonDatabaseChanged, ReasonClockSkew, ReasonTimeBudget, ReasonLeaseLost, ReasonInUse:
		return true, true
	default:
		return false, false
	}
}

// ReasonBrakeTripped is the reason of a line whose dataset was measured and would have lost suspiciously much: nothing of
// it was deleted. Other reasons of a line are the store's own words for why the dataset was refused.
const ReasonBrakeTripped = "BrakeTripped"
