// Package keyserver owns the keys. It makes them, opens sealed values and stores them again under keys of their own,
// hands a pod its credentials when the pod proves who it is, and grants and refuses leases to sweep.
//
// It answers to object references only and reads every object itself, live: a caller names things, it never describes
// them. What may come out of a cache, and why that gives nobody access, is said where the cache is (tenancy.go,
// identity.go, and keys.go in package keystore).
//
// One file for each call. What lies in the keys' namespace, and how it is read and written, is package keystore's; the
// certificates are package authority's. Neither knows this one.
package keyserver
