package steady_test

import (
	"testing"

	"github.com/lethe-dev/lethe/test/operator"
)

func TestMain(m *testing.M) { operator.Main(m) }
