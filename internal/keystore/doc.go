// Package keystore is what lies in the keys' namespace: its documents and their envelope, who opens them, and how
// they are written. The keyserver, its certificate authority and `kubectl lethe keys` read and write through it, so
// that nobody needs the server to understand a backup.
//
// Documents (documents.go, envelope.go) and everything that a backup does (backup.go, restore.go, restore_missing.go)
// take their Secrets as arguments and ask nothing. A Store (store.go) is the same for one process beside the cluster:
// it holds client, key-encryption keys, clock and the tenants' keys that are open for a minute. All keys lie there as
// Secrets that are created once and never made again; docs/design/formats.md says what is stored, and
// docs/design/0038-what-lies-where-of-the-keys.md what lies in which package.
package keystore
