// Package near finds what a name was most likely meant to be. It is pure.
package near

// Nearest is the one of some names that a name is most likely a misspelling of; empty where none is near.
func Nearest(name string, names []string) string {
	best, found := max(1, min(2, len(name)/4))+1, ""
	for _, n := range names {
		if d := Distance(name, n); d < best {
			best, found = d, n
		}
	}
	return found
}

// Distance is how many letters are to be added, taken away, replaced, or changed with their neighbour.
func Distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(x)][len(y)]
}
