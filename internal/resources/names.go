// Package resources holds builders: pure functions from a spec to the objects that should exist. They read no clock, no
// cluster and no environment; what they need is an argument. The manager makes what they return, and the keyserver
// compares live pods with it, so that one description of a bot's pod is true for both.
package resources

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Names that are the same in every cluster and tenant namespace.
const (
	ServiceAccountManager   = "lethe-manager"
	ServiceAccountKeyserver = "lethe-keyserver"

	RoleManagerTenant   = "lethe-manager-tenant"
	RoleKeyserverTenant = "lethe-keyserver-tenant"
	RoleTenantView      = "lethe-tenant-view"
	RoleTenantOperate   = "lethe-tenant-operate"

	BindingManager   = "lethe-manager"
	BindingKeyserver = "lethe-keyserver"
	BindingView      = "lethe-view"
	BindingOperate   = "lethe-operate"

	QuotaName        = "lethe"
	QuotaStorageName = "lethe-storage"
	QuotaObjectsName = "lethe-objects"
	LimitRangeName   = "lethe"

	PolicyDefaultDeny = "lethe-default-deny"
	PolicyKeyserver   = "lethe-keyserver"
	PolicyEgress      = "lethe-egress"

	// CABundleName is the ConfigMap with the keyserver's CA certificates, in the manager's namespace (written by the
	// keyserver) and in each tenant namespace (copied by the manager). Its key is CABundleKey, in PEM.
	CABundleName = "lethe-keyserver-ca"
	CABundleKey  = "ca.crt"
	// AddressesKey in the same ConfigMap holds the cluster IPs of the keyserver's Service, one a line: a bot without
	// egress has no DNS. It is empty where the Service has none.
	AddressesKey = "addresses"
	// DifferingKey in the manager's own copy lists the UIDs of Tenants, one a line, whose keys the keyserver has not
	// found as their status names them; DifferingAll stands for more than would fit. It is left out where there is
	// none.
	DifferingKey = "keys-differ"
	DifferingAll = "*"

	// SealingKeyName is the ConfigMap with the public key that credentials are sealed to, in each tenant namespace.
	// Its key is SealingKeyFile.
	SealingKeyName = v1alpha1.SealingKeyConfigMap
	SealingKeyFile = v1alpha1.KeyFileName

	// PriorityClassSweeper is on the pods of sweeps, so that a tenant's quota does not count them.
	PriorityClassSweeper = "lethe-sweeper"

	// ServiceKeyserver is what pods and the manager call the keyserver by, in the manager's namespace.
	ServiceKeyserver = "lethe-keyserver"

	// KeyserverPort is where the keyserver's pods listen.
	KeyserverPort = 8443
)

const (
	// workloadNameLimit keeps <name>-<hash> of a StatefulSet's revision and <name>-<time> of a CronJob's Job in 63
	// characters: Kubernetes puts both into labels.
	workloadNameLimit = 52
	labelValueLimit   = 63
	objectNameLimit   = 253
	contentHashLength = 10

	// nameHashLength of base32 are 130 bits: nobody finds a second name with the hash of another one.
	nameHashLength = 26
	// hashedMark ends a hash in a child's name.
	hashedMark = "h"
)

// BotName names the ServiceAccount, the NetworkPolicy and the StatefulSet of a bot.
func BotName(bot string) string { return childName(bot, "-bot", workloadNameLimit) }

// BotPodName names the one pod of a bot.
func BotPodName(bot string) string { return BotName(bot) + "-0" }

// SweeperName names the ServiceAccount and the NetworkPolicy of a store's sweeps.
func SweeperName(store string) string { return childName(store, "-sweeper", workloadNameLimit) }

// SweepName names the CronJob of a store.
func SweepName(store string) string { return childName(store, "-sweep", workloadNameLimit) }

// PlanName names the ConfigMap of a plan, by the first ten characters of its hash.
func PlanName(store, hash string) string { return hashedName(store, "-plan-", hash, objectNameLimit) }

// CatchUpName names a Job that catches up with a missed sweep. The first ten characters of the hash say which one.
func CatchUpName(store, hash string) string {
	return hashedName(store, "-catchup-", hash, labelValueLimit)
}

// CredentialsName names the encrypted Secret of a bot or store, by the first ten characters of the hash of what is in
// it.
func CredentialsName(owner, hash string) string {
	return hashedName(owner, "-cred-", hash, objectNameLimit)
}

// LabelValue is a name as a label's value: itself, or cut and hashed where it is longer than a label's value may be.
// No name of an object has an underscore, so no name is the label's value of another one.
func LabelValue(name string) string {
	if len(name) <= labelValueLimit {
		return name
	}
	return cut(name, labelValueLimit-nameHashLength-1) + "_" + nameHash(name)
}

func hashedName(owner, infix, hash string, limit int) string {
	if len(hash) > contentHashLength {
		hash = hash[:contentHashLength]
	}
	return childName(owner, infix+hash, limit)
}

// childName appends a suffix, which begins with a dash, to the owner's name. Names with dots are refused by
// Kubernetes as a pod's host name, and long ones do not fit: those are cut, with a hash of the whole name in between
// and a mark behind the hash. A child of an owner that is short ends in "-bot", one of an owner that was hashed in a
// hash, its mark and "-bot", and an owner whose own name ends like that is hashed as well: no owner can choose a name
// whose child is another's.
func childName(owner, suffix string, limit int) string {
	if len(owner)+len(suffix) <= limit && !strings.Contains(owner, ".") && !looksHashed(owner) {
		return owner + suffix
	}
	room := limit - len(suffix) - nameHashLength - len(hashedMark) - 1
	return cut(strings.ReplaceAll(owner, ".", "-"), room) + "-" + nameHash(owner) + hashedMark + suffix
}

// looksHashed says whether a name ends as a hashed one does. Such a name is hashed too.
func looksHashed(owner string) bool {
	tail := owner[strings.LastIndexByte(owner, '-')+1:]
	return len(tail) == nameHashLength+len(hashedMark) && strings.HasSuffix(tail, hashedMark)
}

func cut(name string, length int) string {
	if len(name) > length {
		name = name[:length]
	}
	return strings.TrimRight(name, "-.")
}

// nameHash is the hash of a name in the letters that names are made of.
func nameHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:nameHashLength]
}
