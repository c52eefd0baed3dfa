package main

import "fmt"

func main() {
	fmt.Println("scale: nothing measured")
}
