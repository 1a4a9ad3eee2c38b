"""Before anybody trains: what sites would share, what stands in the way, and what it will cost."""

from fedscgen.check._answer import LABEL_MAP, SiteCheck
from fedscgen.check._check import Checked, check_sites
from fedscgen.check._cost import Cost, expect_cost
from fedscgen.check._findings import Finding
from fedscgen.check._page import CHECK_PAGE, write_check_page
from fedscgen.check._rehearsal import Rehearsal
from fedscgen.check._site import Site
from fedscgen.check._text import describe_check
from fedscgen.check._together import check_together

__all__ = [
    "CHECK_PAGE",
    "LABEL_MAP",
    "Checked",
    "Cost",
    "Finding",
    "Rehearsal",
    "Site",
    "SiteCheck",
    "check_sites",
    "check_together",
    "describe_check",
    "expect_cost",
    "write_check_page",
]
