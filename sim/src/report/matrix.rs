//! Bytes from site to site. Where there are many sites, neighbours by number are one row; the origin stays alone.

/// Rows that can be told apart on a page.
const ROWS_MAX: usize = 32;

/// Bytes from each row to each column.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Of rows and columns.
    pub names: Vec<String>,
    /// Row by row.
    pub cells: Vec<f64>,
    /// Sites that share a row; 1 where none do.
    pub together: usize,
    sites: usize,
    origin: Option<usize>,
}

impl Matrix {
    /// With nothing in it.
    pub fn new(sites: &[String], origin: Option<u64>) -> Self {
        let count = sites.len();
        let origin = origin.and_then(|site| usize::try_from(site).ok()).filter(|site| *site < count);
        let (together, origin) =
            if count <= ROWS_MAX { (1, None) } else { (count.div_ceil(ROWS_MAX - 2).max(2), origin) };
        let mut matrix = Matrix { names: vec![], cells: vec![], together, sites: count, origin };
        let mut rows: Vec<Vec<usize>> = vec![];
        for site in 0..count {
            let row = matrix.row(site);
            if rows.len() <= row {
                rows.resize(row + 1, vec![]);
            }
            rows[row].push(site);
        }
        let name = |row: &Vec<usize>| match (row.first(), row.last()) {
            (Some(one), Some(other)) if one == other => sites[*one].clone(),
            (Some(one), Some(other)) => format!("{} to {}", sites[*one], sites[*other]),
            _ => String::new(),
        };
        matrix.names = rows.iter().map(name).collect();
        matrix.cells = vec![0.0; rows.len() * rows.len()];
        matrix
    }

    /// Adds bytes; those of sites that do not exist are left out.
    pub fn add(&mut self, from: u64, to: u64, bytes: u64) {
        let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else { return };
        if from < self.sites && to < self.sites {
            let cell = self.row(from) * self.names.len() + self.row(to);
            self.cells[cell] += bytes as f64;
        }
    }

    /// The largest cell.
    pub fn most(&self) -> f64 {
        self.cells.iter().copied().fold(0.0, f64::max)
    }

    /// The origin first if it stays alone, then the others in the order of their numbers.
    fn row(&self, site: usize) -> usize {
        match self.origin {
            Some(origin) if site == origin => 0,
            Some(origin) => 1 + (site - usize::from(site > origin)) / self.together,
            None => site / self.together,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|site| format!("s{site}")).collect()
    }

    #[test]
    fn few_sites_are_a_row_each() {
        let mut matrix = Matrix::new(&names(3), Some(1));
        matrix.add(0, 2, 5);
        matrix.add(9, 0, 5);
        assert_eq!((matrix.names.len(), matrix.cells[2], matrix.most()), (3, 5.0, 5.0));
    }

    #[test]
    fn many_sites_share_rows_but_the_origin_does_not() {
        let mut matrix = Matrix::new(&names(1000), Some(500));
        assert!(matrix.names.len() <= ROWS_MAX, "{}", matrix.names.len());
        assert_eq!((matrix.names[0].as_str(), matrix.names[1].as_str()), ("s500", "s0 to s33"));
        let rows = matrix.names.len();
        for site in 0..1000 {
            matrix.add(500, site, 1);
        }
        assert_eq!(matrix.cells[..rows].iter().sum::<f64>(), 1000.0);
        assert_eq!((matrix.cells[0], matrix.cells[1]), (1.0, 34.0));
        assert_eq!(Matrix::new(&[], None).most(), 0.0);
    }
}
