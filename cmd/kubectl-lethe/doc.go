// Command kubectl-lethe is what people use beside their manifests: it seals credentials for one place, says what will
// happen to a store's data, approves a plan, prints the grants that sweeps need, and backs up keys. It acts with the
// rights of whoever calls it and needs none of its own.
//
// A value that is to be sealed comes from standard input or from a file, never from an argument: arguments stand in the
// shell's history and in the list of processes. No error repeats what was read, nor an argument that might be a value
// put in the wrong place.
package main
