// Package keyserver owns the keys. It makes them, opens sealed values and stores them again under keys of their own,
// hands a pod its credentials when the pod proves who it is, and grants and refuses leases to sweep.
//
// It answers to object references only and reads every object itself, live: a caller names things, it never describes
// them. What may come out of a cache, and why that gives nobody access, is said where the cache is (tenancy.go, keys.go,
// identity.go). All keys lie in one namespace as Secrets that are created once and never made again.
//
// One file for each call; documents.go and docs/design/formats.md say what is stored.
package keyserver
