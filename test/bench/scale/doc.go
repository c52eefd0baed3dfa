// Command scale measures what the manager costs for each bot, beside a bare client that creates the same objects on the
// same cluster in the same run.
package main
