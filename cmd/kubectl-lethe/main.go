package main

import (
	"fmt"

	"github.com/lethe-dev/lethe/internal/version"
)

func main() {
	fmt.Println(version.String())
}
