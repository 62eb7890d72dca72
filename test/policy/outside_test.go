package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoTestAsksTheRealRoot: a probe that resolves a name asks the zone's own servers too, from the root
// down, and the root is IANA's unless Env.Hints says otherwise. No test may leave the machine.
func TestNoTestAsksTheRealRoot(t *testing.T) {
	found := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			keys := envKeys(n)
			if keys["Resolvers"] {
				found++
				if !keys["Hints"] {
					t.Errorf("%s: an Env with Resolvers and without Hints", set.Position(n.Pos()))
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 5 {
		t.Errorf("only %d Envs found", found)
	}
}

// envKeys are the fields that a literal of a probe's Env sets to something that is not empty; Hints count
// whatever they are. Nil for any other node.
func envKeys(n ast.Node) map[string]bool {
	lit, ok := n.(*ast.CompositeLit)
	if !ok {
		return nil
	}
	name := ""
	switch typ := lit.Type.(type) {
	case *ast.Ident:
		name = typ.Name
	case *ast.SelectorExpr:
		name = typ.Sel.Name
	}
	if name != "Env" {
		return nil
	}
	keys := map[string]bool{}
	for _, element := range lit.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, value := pair.Key.(*ast.Ident), pair.Value
		empty, isLit := value.(*ast.CompositeLit)
		keys[key.Name] = key.Name == "Hints" || !isLit || len(empty.Elts) > 0
	}
	return keys
}
