package kith_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// goFile is one parsed source file of the repository.
type goFile struct {
	name, dir string
	isTest    bool
	syntax    *ast.File
	set       *token.FileSet
}

// at is a position for messages.
func (f *goFile) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.name, f.set.Position(n.Pos()).Line)
}

func (f *goFile) lines(from, to token.Pos) int {
	return f.set.Position(to).Line - f.set.Position(from).Line + 1
}

func (f *goFile) imports() []string {
	var all []string
	for _, spec := range f.syntax.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			all = append(all, name)
		}
	}
	return all
}

// goFiles are all Go files of the repository, other modules and build tags included.
func goFiles(t *testing.T) []*goFile {
	t.Helper()
	all, err := parseAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d Go files found", len(all))
	}
	return all
}

var parseAll = sync.OnceValues(parse)

func parse() ([]*goFile, error) {
	var all []*goFile
	set := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() && name != "." && (base == "testdata" || base == "build" || base == "bin" || strings.HasPrefix(base, ".")) {
			return filepath.SkipDir
		}
		if entry.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		syntax, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		if ast.IsGenerated(syntax) {
			return nil
		}
		all = append(all, &goFile{name: filepath.ToSlash(name), dir: filepath.ToSlash(filepath.Dir(name)),
			isTest: strings.HasSuffix(name, "_test.go"), syntax: syntax, set: set})
		return nil
	})
	return all, err
}

// productFiles are those of the root module that are built into the product.
func productFiles(t *testing.T) []*goFile {
	t.Helper()
	var all []*goFile
	for _, f := range goFiles(t) {
		if !f.isTest && f.dir != "." && !isOtherModule(f.dir) {
			all = append(all, f)
		}
	}
	return all
}

func isOtherModule(dir string) bool {
	top, _, _ := strings.Cut(dir, "/")
	return top == "e2e" || top == "deploy" || top == "tools"
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
