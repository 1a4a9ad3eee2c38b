"""Before anybody trains: what sites would share, what stands in the way, and what it will cost."""

from fedscgen.check._check import Checked, Finding, Site, check_sites
from fedscgen.check._cost import Cost, expect_cost
from fedscgen.check._page import write_check_page
from fedscgen.check._text import describe_check

__all__ = ["Checked", "Cost", "Finding", "Site", "check_sites", "describe_check", "expect_cost", "write_check_page"]
