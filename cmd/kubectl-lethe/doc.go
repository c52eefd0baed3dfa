// Command kubectl-lethe is what people use beside their manifests: it seals credentials for one place, says what will
// happen to a store's data, approves a plan, prints the grants a sweep needs, and backs up keys. It acts with the
// rights of whoever calls it and needs none of its own.
package main
