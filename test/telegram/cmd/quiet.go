package main

import (
	"io"
	"log"
)

// quiet drops net/http's own lines: those about bad requests can quote the request, and its path holds a token.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
