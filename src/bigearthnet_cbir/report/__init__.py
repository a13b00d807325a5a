"""Printed tables, comparisons of runs, and the HTML report."""

from bigearthnet_cbir.callable_package import make_callable

make_callable(__name__, "bigearthnet_cbir.pipelines.report:write_report")
