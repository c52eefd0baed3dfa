module github.com/lethe-dev/lethe/hack/cluster

go 1.26.0
