package e2e

import (
	"testing"

	"github.com/tidegate/tidegate/internal/browser"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(browser.Tests{M: m}) }
