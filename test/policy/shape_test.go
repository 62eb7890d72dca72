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

// maxParameters is how many parameters a function has at most: a fourth is now and then the plainest way, beyond
// it they are a struct. A context, a *testing.T and what comes as "..." do not count.
const maxParameters = 4

func TestManyParametersAreAStruct(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".pb.go") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				seen++
				if n := parameters(f.Type); n > maxParameters {
					t.Errorf("%s: %s has %d parameters", set.Position(f.Pos()), f.Name.Name, n)
				}
			}
		}
		return nil
	})
	if err != nil || seen < 1000 {
		t.Errorf("%d functions: %v", seen, err)
	}
}

// parameters counts the parameters that a reader of a call has to tell apart by their place.
func parameters(f *ast.FuncType) (n int) {
	for _, p := range f.Params.List {
		typ := p.Type
		if pointer, ok := typ.(*ast.StarExpr); ok {
			typ = pointer.X
		}
		if named, ok := typ.(*ast.SelectorExpr); ok {
			if from, ok := named.X.(*ast.Ident); ok && (from.Name == "context" || from.Name == "testing") {
				continue
			}
		}
		if _, rest := typ.(*ast.Ellipsis); !rest {
			n += max(1, len(p.Names))
		}
	}
	return n
}
