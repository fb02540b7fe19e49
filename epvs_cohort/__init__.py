"""Count enlarged perivascular spaces on thousands of MRI scans."""

__version__ = "0.1.0"
