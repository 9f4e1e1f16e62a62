"""The audit's web pages: rendered here, readable without scripts, each table also JSON and CSV.

A page is a module that makes an `area.Area`: its place in the navigation, the role it needs, its routes. `service`
lists the areas. A route takes a `visits.Visit`, which knows who is there and renders templates and tables.
"""
