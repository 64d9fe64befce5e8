package kith_test

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// The limits on product code and on tests.
const (
	maxFunction, maxTestFunction = 60, 120
	maxFile, maxTestFile         = 400, 700
	maxMain                      = 150
	maxParameters                = 5
	maxMethods                   = 5
)

func TestSizes(t *testing.T) {
	for _, f := range goFiles(t) {
		limit, function := maxFile, maxFunction
		switch {
		case f.isTest:
			limit, function = maxTestFile, maxTestFunction
		case strings.HasSuffix(f.name, "/main.go"):
			limit = maxMain
		}
		if n := f.lines(f.syntax.FileStart, f.syntax.FileEnd); n > limit+1 {
			t.Errorf("%s has %d lines, at most %d", f.name, n, limit)
		}
		for _, decl := range f.syntax.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok {
				if n := f.lines(fn.Pos(), fn.End()); n > function {
					t.Errorf("%s: %s has %d lines, at most %d", f.at(fn), fn.Name.Name, n, function)
				}
			}
		}
	}
}

func TestSignatures(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.isTest {
			continue
		}
		for _, decl := range f.syntax.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if fn.Name.Name == "init" && fn.Recv == nil {
				t.Errorf("%s: no init functions", f.at(fn))
			}
			if n := fn.Type.Params.NumFields(); n > maxParameters {
				t.Errorf("%s: %s has %d parameters, at most %d", f.at(fn), fn.Name.Name, n, maxParameters)
			}
			for _, p := range fn.Type.Params.List {
				if forced[f.dir+"."+fn.Name.Name] {
					break
				}
				if id, ok := p.Type.(*ast.Ident); ok && id.Name == "bool" {
					t.Errorf("%s: %s has a bool parameter: make two functions or a type with names", f.at(fn), fn.Name.Name)
				}
			}
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if i, ok := n.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxMethods {
				t.Errorf("%s: an interface with %d methods, at most %d", f.at(i), i.Methods.NumFields(), maxMethods)
			}
			return true
		})
	}
}

// forced are methods whose signature an interface of somebody else demands.
var forced = map[string]bool{
	"overlay/gossip.LocalState":       true, // memberlist.Delegate
	"overlay/gossip.MergeRemoteState": true, // memberlist.Delegate
}

// TestPackageVariablesNeverChange: syntax shows assignments, address-taking and the types that exist to be changed.
func TestPackageVariablesNeverChange(t *testing.T) {
	vars := map[string]map[string]bool{}
	for _, f := range goFiles(t) {
		if f.isTest {
			continue
		}
		if vars[f.dir] == nil {
			vars[f.dir] = map[string]bool{}
		}
		for _, spec := range packageVariables(f) {
			for _, name := range spec.Names {
				vars[f.dir][name.Name] = true
			}
			if sel, ok := spec.Type.(*ast.SelectorExpr); ok {
				if pkg, ok := sel.X.(*ast.Ident); ok && (pkg.Name == "sync" || pkg.Name == "atomic") {
					t.Errorf("%s: a package variable of type %s.%s changes", f.at(spec), pkg.Name, sel.Sel.Name)
				}
			}
		}
	}
	for _, f := range goFiles(t) {
		if f.isTest {
			continue
		}
		for _, decl := range f.syntax.Decls {
			local := declared(decl)
			for _, id := range changed(decl) {
				if vars[f.dir][id.Name] && !local[id.Name] {
					t.Errorf("%s: the package variable %s is changed", f.at(id), id.Name)
				}
			}
		}
	}
}

// declared are the names that a function declares inside: parameters, results and variables.
func declared(decl ast.Decl) map[string]bool {
	names := map[string]bool{}
	if _, ok := decl.(*ast.FuncDecl); !ok {
		return names
	}
	ast.Inspect(decl, func(n ast.Node) bool {
		var list []*ast.Ident
		switch n := n.(type) {
		case *ast.Field:
			list = n.Names
		case *ast.ValueSpec:
			list = n.Names
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				list = identifiers(n.Lhs...)
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				list = identifiers(n.Key, n.Value)
			}
		}
		for _, id := range list {
			names[id.Name] = true
		}
		return true
	})
	return names
}

func identifiers(all ...ast.Expr) []*ast.Ident {
	var ids []*ast.Ident
	for _, e := range all {
		if id, ok := e.(*ast.Ident); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

func packageVariables(f *goFile) []*ast.ValueSpec {
	var all []*ast.ValueSpec
	for _, decl := range f.syntax.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, spec := range gen.Specs {
			all = append(all, spec.(*ast.ValueSpec))
		}
	}
	return all
}

// changed are the variables at the root of what a declaration assigns to, counts up, or takes the address of.
func changed(decl ast.Decl) []*ast.Ident {
	var all []*ast.Ident
	add := func(e ast.Expr) {
		if id := root(e); id != nil {
			all = append(all, id)
		}
	}
	ast.Inspect(decl, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					add(e)
				}
			}
		case *ast.IncDecStmt:
			add(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				add(n.X)
			}
		}
		return true
	})
	return all
}

// root is the variable that a.b[c].d belongs to.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range goFiles(t) {
		if !f.isTest {
			documented[f.dir] = documented[f.dir] || f.syntax.Doc != nil
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}
