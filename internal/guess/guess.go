// Package guess finds, by names alone, what a database's catalogue does not say: columns that are named after a
// dataset and that no foreign key ties to it, and columns that hold the only pointer to a file or an object
// elsewhere. Products declare few foreign keys. A guess that is wrong costs a person one sentence in spec.relations;
// one that is not made costs rows that somebody still needs, so that names match widely. The package is pure.
package guess

import (
	"cmp"
	"slices"
	"strings"
)

// Table is a table of the catalogue. Partitions count as the table that they are of.
type Table struct {
	Schema, Name string
	Columns      []Column
	// Keys are its foreign keys.
	Keys []Key
}

// Column of a table.
type Column struct {
	Name string
	// Type as format_type tells it, without modifiers.
	Type string
}

// Key is a foreign key: columns of a table, and the table that they refer to.
type Key struct {
	Columns      []string
	Schema, Name string
}

// Dataset is a table that rows may be deleted from.
type Dataset struct {
	Name          string
	Schema, Table string
	Key           []string
	Explained     []string // columns that the map explains: they name no row
}

// Relation is a column that is named after a dataset, and that nothing ties to it.
type Relation struct {
	Schema, Table, Column string
	References            string // the dataset's name
}

// Relations lists the columns that are named after a dataset and that no foreign key ties to it, sorted.
func Relations(tables []Table, datasets []Dataset) []Relation {
	prefixes := sharedPrefixes(tables)
	type called struct {
		Dataset
		whole, parts, last []string
	}
	targets := make([]called, 0, len(datasets))
	for _, d := range datasets {
		t := called{Dataset: d}
		for _, name := range []string{d.Table, d.Name} {
			whole, parts := calls(name, append(split(d.Schema), prefixes...))
			t.whole, t.parts = append(t.whole, whole...), append(t.parts, parts...)
			t.last = append(t.last, lastWord(name))
		}
		targets = append(targets, t)
	}
	var everywhere []string // what any table of the database is called
	for _, t := range tables {
		whole, _ := calls(t.Name, append(split(t.Schema), prefixes...))
		everywhere = append(everywhere, whole...)
	}
	var out []Relation
	for _, t := range tables {
		for _, k := range t.Columns {
			if !pointing(k.Type) || spoken(t, k.Name) {
				continue
			}
			w := columnWords(k.Name)
			known := slices.ContainsFunc(everywhere, func(thing string) bool { found, _ := names(w, thing); return found })
			for _, d := range targets {
				own := t.Schema == d.Schema && t.Name == d.Table
				if own && (slices.Contains(d.Key, k.Name) || slices.Contains(d.Explained, k.Name)) || tied(t, k.Name, d.Dataset) {
					continue
				}
				things := d.whole
				if !known {
					things = append(slices.Clone(things), d.parts...)
				}
				hit := slices.ContainsFunc(things, func(thing string) bool {
					found, qualified := names(w, thing)
					return found && (!own || qualified)
				})
				if !known && !own {
					hit = hit || slices.ContainsFunc(d.last, func(thing string) bool { return abbreviates(w, thing) })
				}
				if hit || own && before(w) {
					out = append(out, Relation{Schema: t.Schema, Table: t.Name, Column: k.Name, References: d.Name})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Relation) int {
		return cmp.Or(cmp.Compare(a.References, b.References), cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(out)
}

// sharedPrefixes are words with which at least three tables and most of them begin: app_messages, app_conversations.
func sharedPrefixes(tables []Table) []string {
	n := map[string]int{}
	for _, t := range tables {
		if w := split(t.Name); len(w) > 1 {
			n[w[0]]++
		}
	}
	var out []string
	for w, times := range n {
		if times >= 3 && times*2 > len(tables) {
			out = append(out, w)
		}
	}
	slices.Sort(out)
	return out
}

// pointing says whether a column of this type can hold what tells a row: not a time, a flag, or what is searched in.
func pointing(typ string) bool {
	for _, no := range []string{"boolean", "date", "time", "interval", "tsvector", "point", "money", "inet", "cidr"} {
		if strings.HasPrefix(typ, no) {
			return false
		}
	}
	return true
}

// spoken says that a foreign key of this column alone tells what it names.
func spoken(t Table, column string) bool {
	return slices.ContainsFunc(t.Keys, func(k Key) bool { return len(k.Columns) == 1 && k.Columns[0] == column })
}

// tied says that a foreign key to the dataset's table has this column, beside others.
func tied(t Table, column string, d Dataset) bool {
	return slices.ContainsFunc(t.Keys, func(k Key) bool {
		return k.Schema == d.Schema && k.Name == d.Table && slices.Contains(k.Columns, column)
	})
}

// earlier are words for another row of the same table.
var earlier = []string{"parent", "root", "predecessor", "previous", "prev", "original", "replyto", "inreplyto", "repliesto", "answerto", "supersedes", "replaces", "next", "successor"}

// before says whether a column names another row of its own table, without the table's name: parent_id, reply_to.
func before(column []string) bool {
	for len(column) > 0 && identifying[column[len(column)-1]] {
		column = column[:len(column)-1]
	}
	for len(column) > 0 && identifying[column[0]] {
		column = column[1:]
	}
	return slices.Contains(earlier, strings.Join(column, ""))
}

// pointers are words of columns that tell where a file or an object lies.
var (
	places  = words("url urls uri uris href path paths filepath filename filenames bucket buckets blob blobs attachment attachments file files")
	objects = words("storage object objects gcs minio file files blob blobs upload uploads media asset assets image images avatar photo video audio document")
)

// Pointer says whether a column may hold the only pointer to a file or an object: url, path, bucket, attachment,
// storage_key.
func Pointer(name, typ string) bool {
	if typ == "oid" || typ == "lo" {
		return true // a large object
	}
	for _, holds := range []string{"text", "character", "json", "uuid", "bytea", "citext"} {
		if strings.HasPrefix(strings.TrimPrefix(typ, "public."), holds) {
			w := split(strings.NewReplacer("s3", "object", "S3", "Object").Replace(name))
			for i, word := range w {
				if places[word] || i > 0 && objects[w[i-1]] && (identifying[word] || word == "name" || word == "location") {
					return true
				}
			}
			return len(w) == 1 && (w[0] == "key" || places[w[0]] || objects[w[0]]) || slices.ContainsFunc(unjoinPlace(w), func(p string) bool { return places[p] })
		}
	}
	return false
}

// unjoinPlace takes fileurl and objectkey apart.
func unjoinPlace(w []string) []string {
	var out []string
	for _, word := range w {
		for place := range places {
			if rest, ok := strings.CutSuffix(word, place); ok && objects[rest] {
				out = append(out, place)
			}
		}
		if rest, ok := strings.CutSuffix(word, "key"); ok && objects[rest] {
			out = append(out, "path")
		}
	}
	return out
}
